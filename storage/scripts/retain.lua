-- Gives threads a new retention time, counted from their last message: to their turns, to the records
-- of their messages, and to their deliveries. Returns the number of threads.

local changed = 0
for _, row in ipairs(A.threads) do
  local T, ms = row.thread, row.keep_ms
  local last = tonumber(call('ZSCORE', K('threads'), T) or now)
  if call('EXISTS', K('thread', T)) == 1 then
    local left = math.max(last + ms - now, 1)
    local function live(name, ...)
      call('PEXPIRE', K(name, ...), left)
    end
    call('HSET', K('thread', T), 'retention', ms)
    renew_records(T, left)
    for _, J in ipairs(call('HKEYS', K('kept', T))) do
      for _, name in ipairs({ 'sample', 'duel' }) do
        if call('PTTL', K(name, J)) > left then live(name, J) end
      end
    end
    for _, name in ipairs({ 'thread', 'turns', 'history', 'mailbox', 'counts', 'changes', 'choice',
      'kept' }) do
      live(name, T)
    end
    retentions[T] = left
    renew_branches(T, call('HGET', K('thread', T), 'ancestors') or '')
    changed = changed + 1
  end
end
return changed
