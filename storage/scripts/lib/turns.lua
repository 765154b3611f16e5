-- Turns in a thread's mailbox and history.

-- Records turns as changed or removed, so that cores with an older version read them again.
local function record_changes(T, ...)
  local ids, scored = { ... }, {}
  local version = call('HINCRBY', K('thread', T), 'version', #ids)
  for i, id in ipairs(ids) do
    scored[2 * i - 1], scored[2 * i] = version - #ids + i, id
  end
  call('ZADD', K('changes', T), unpack(scored))
  if version % 256 < #ids and call('ZCARD', K('changes', T)) > 512 then
    local old = call('ZPOPMIN', K('changes', T), 256)
    call('HSET', K('thread', T), 'floor', old[#old])
  end
  renew_retention(T, 'changes', T)
end

local function drop_turn(T, id)
  call('ZREM', K('history', T), id)
  call('ZREM', K('mailbox', T), id)
  call('HDEL', K('turns', T), id)
  call('HDEL', K('counts', T), id)
  record_changes(T, id)
end

-- Sets a message that was too long aside for a day, in which its beginning can be answered; `J` is the
-- job that refused it.
local function put_aside(T, id, J)
  local record = call('HGET', K('turns', T), id)
  drop_turn(T, id)
  if not record then return end
  call('HSET', K('aside', T), id, cjson.encode({ job = J, record = record }))
  call('PEXPIRE', K('aside', T), math.min(LIFE.aside, retention_of(T)))
end

-- A message that was put aside, with its job; nil if there is none.
local function aside(T, id)
  local kept = decoded(call('HGET', K('aside', T), id) or '')
  return kept.record and kept
end

-- Puts such a message at the end of its thread.
local function take_back(T, id, record)
  call('HDEL', K('aside', T), id)
  call('HSET', K('turns', T), id, record)
  call('ZADD', K('mailbox', T), call('HINCRBY', K('thread', T), 'sequence', 1), id)
  touch_thread(T, 'turns', 'mailbox', 'history', 'counts', 'changes')
end

-- The files' text at the end of a turn: its last `below` bytes.
local function files_of(turn)
  local below = tonumber(turn.below) or 0
  return below > 0 and string.sub(turn.text, -below) or ''
end

-- Words with files below them.
local function joined(words, files)
  return words .. (words ~= '' and files ~= '' and '\n\n' or '') .. files
end

-- A turn's record, with an edit applied that arrived before the message itself.
local function apply_early_edit(T, id, record)
  local edit = call('GET', K('edited', T .. ' ' .. id))
  if not edit then return record end
  local turn, newer = cjson.decode(record), decoded(edit)
  turn.text, turn.revision = joined(newer.text, files_of(turn)), newer.revision
  return cjson.encode(turn)
end

-- Moves a reply and its question into the history, or overwrites the reply that it replaces. Without
-- `record`, nothing was shown; without `count`, the tokens are counted for the next prompt.
local function keep_reply(T, J, job, record, count)
  local scored, ids = {}, {}
  local function append(score, id)
    scored[#scored + 1], scored[#scored + 2] = score, id
    ids[#ids + 1] = id
  end
  local behind
  if job.replaces then
    behind = call('ZSCORE', K('history', T), job.replaces)
    if not behind then return end
    drop_turn(T, job.replaces)
    behind = behind - 0.5
  else
    behind = call('ZSCORE', K('mailbox', T), job.turn)
    if behind then
      local read = call('ZRANGEBYSCORE', K('mailbox', T), '-inf', behind, 'WITHSCORES')
      for i = 1, #read, 2 do append(read[i + 1], read[i]) end
      call('ZREMRANGEBYSCORE', K('mailbox', T), '-inf', behind)
    else
      -- it was read with a later message, before it was known to be addressed
      behind = call('ZSCORE', K('history', T), job.turn) or 0
    end
  end
  if record ~= '' then
    call('HSET', K('turns', T), J, record)
    if count then call('HSET', K('counts', T), J, count) end
    append(behind + 0.5, J) -- right after the turn that it answers, before any newer turn
  end
  if #ids == 0 then return end
  call('ZADD', K('history', T), unpack(scored))
  record_changes(T, unpack(ids))
end

-- The turns of these ids, or of ids each with its score behind it, as rows of id, score, record and
-- count; all but the id are false where there is none.
local function turn_rows(T, ids, scored)
  local out, step = {}, scored and 2 or 1
  for i = 1, #ids, 200 do
    local some = {}
    for j = i, math.min(i + 199, #ids), step do some[#some + 1] = ids[j] end
    local records = call('HMGET', K('turns', T), unpack(some))
    local counts = call('HMGET', K('counts', T), unpack(some))
    for j, id in ipairs(some) do
      local score = scored and ids[i + 2 * j - 1] or call('ZSCORE', K('history', T), id)
      out[#out + 1] = { id, score, records[j], counts[j] }
    end
  end
  return out
end

-- A thread's window for the next prompt: the history's changes since the reader's version, or all of
-- it, and the mailbox up to the job's turn, or all of it.
-- Returns version, whether it is all, history rows, mailbox rows.
local function window(T, meta, since, turn)
  local all = since == 0 or since < tonumber(meta.floor)
  local history
  if all then
    history = turn_rows(T, call('ZRANGE', K('history', T), 0, -1, 'WITHSCORES'), true)
  else
    history = turn_rows(T, call('ZRANGEBYSCORE', K('changes', T), '(' .. since, '+inf'))
  end
  local upto = turn == '' and '+inf' or call('ZSCORE', K('mailbox', T), turn)
  local mailbox = {}
  if upto then
    local ids = call('ZRANGEBYSCORE', K('mailbox', T), '-inf', upto, 'WITHSCORES')
    mailbox = turn_rows(T, ids, true)
  end
  return { tonumber(meta.version), all and 1 or 0, history, mailbox }
end
