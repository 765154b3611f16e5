-- Gives threads another term, counted from their last message. Returns how many there were.

local changed = 0
for _, row in ipairs(A.threads) do
  local T, ms = row.thread, row.keep_ms
  local last = tonumber(call('ZSCORE', K('threads'), T) or now)
  if call('EXISTS', K('thread', T)) == 1 then
    call('HSET', K('thread', T), 'retention', ms)
    for _, name in ipairs({ 'thread', 'turns', 'history', 'mailbox', 'counts', 'changes' }) do
      call('PEXPIRE', K(name, T), math.max(last + ms - now, 1))
    end
    changed = changed + 1
  end
end
return changed
