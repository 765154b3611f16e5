-- Turns in a thread's mailbox and history.

-- A changed turn is read again by whoever has an older version; one that is gone, too.
local function changed(T, id)
  local version = call('HINCRBY', K('thread', T), 'version', 1)
  call('ZADD', K('changes', T), version, id)
  if version % 256 == 0 and call('ZCARD', K('changes', T)) > 512 then
    local old = call('ZPOPMIN', K('changes', T), 256)
    call('HSET', K('thread', T), 'floor', old[#old])
  end
  keep(T, 'changes', T)
end

local function drop(T, id)
  call('ZREM', K('history', T), id)
  call('ZREM', K('mailbox', T), id)
  call('HDEL', K('turns', T), id)
  call('HDEL', K('counts', T), id)
  changed(T, id)
end

-- A turn's record, with an edit that overtook it.
local function edited(T, id, record)
  local edit = call('GET', K('edited', T .. ' ' .. id))
  if not edit then return record end
  local turn, newer = cjson.decode(record), decoded(edit)
  turn.text, turn.revision = newer.text, newer.revision
  return cjson.encode(turn)
end

-- A reply becomes history with what was read for it, or stands where the one stood that it replaces.
-- No record: nothing was shown. No count: it is made for the next prompt.
local function keep_reply(T, J, job, record, count)
  local function append(behind)
    if record == '' then return end
    call('HSET', K('turns', T), J, record)
    if count then call('HSET', K('counts', T), J, count) end
    call('ZADD', K('history', T), behind + 0.5, J)
    changed(T, J)
  end
  if job.replaces then
    local score = call('ZSCORE', K('history', T), job.replaces)
    if not score then return end
    drop(T, job.replaces)
    return append(score - 0.5)
  end
  local upto = call('ZSCORE', K('mailbox', T), job.turn)
  -- read already, with a later message, before it was known to be addressed
  if not upto then return append(call('ZSCORE', K('history', T), job.turn) or 0) end
  for _, id in ipairs(call('ZRANGEBYSCORE', K('mailbox', T), '-inf', upto)) do
    call('ZADD', K('history', T), call('ZSCORE', K('mailbox', T), id), id)
    call('ZREM', K('mailbox', T), id)
    changed(T, id)
  end
  append(upto) -- just behind the turn that it answers, whatever came in meanwhile
end
