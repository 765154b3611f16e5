-- Changes the stored turn of an edited message. The newest question is answered again, in the place
-- of its reply. Returns outcome, job, position, code, held.

local T, id = A.thread, A.turn
local meta = load_thread(T)
local record = meta and call('HGET', K('turns', T), id)

local function is_stale(revision)
  return revision and (tonumber(revision) or 0) >= (tonumber(A.revision) or 1)
end

-- for a copy of the message that comes later: with what was said before, or after a reset
local key = K('edited', T .. ' ' .. id)
local before = call('GET', key)
if not (before and is_stale(decoded(before).revision)) then
  call('SET', key, cjson.encode({ text = A.text, revision = A.revision }), 'PX', LIFE.edited)
  call('SADD', K('edits', T), id)
  touch('edits', T)
end
if not record then return { 'ignored', '', 0, '', 0 } end

local turn = decoded(record)
if not turn.text then return { 'ignored', '', 0, '', 0 } end
if is_stale(turn.revision) then return { 'duplicate', A.job, 0, '', 0 } end
local text = joined(A.text, files_of(turn))
local same = turn.text == text
turn.text, turn.revision = text, A.revision
call('HSET', K('turns', T), id, cjson.encode(turn))
if same then return { 'duplicate', '', 0, '', 0 } end
call('HDEL', K('counts', T), id)
record_changes(T, id)

local function covers(job)
  return job.turn == id or string.find('\n' .. (job.covers or ''), '\n' .. id .. '\n', 1, true)
end

-- No quota is left to answer the new text, and the old one is not asked any more.
local function refuse_restart(J, job, code, til)
  call('HSET', K('job', J), 'messages', 0)
  job.messages, job.charged = 0, nil
  finish_job(T, J, job, 'failed', failed_event(code, 'used up', til))
  schedule(T)
  return { 'refused', '', 0, code, 0, til or 0 }
end

for _, J in ipairs(call('ZRANGE', K('jobs', T), 0, -1)) do
  local job = job_of(J)
  if covers(job) then
    if meta.running == J then
      -- the same job starts over: its core is fenced, and `Started` empties what was shown
      local used, til = nil, nil
      if A.quota then used, til = exhausted_quota(T, job.author) end
      if used then return refuse_restart(J, job, used, til) end
      charge_restart(T, J, job)
      call('HSET', K('job', J), 'state', 'waiting', 'attempts', 0)
      call('HDEL', K('job', J), 'cancel') -- who stopped it did not have this in mind
      schedule(T)
    end
    return { 'queued', J, position(job.lane, path_of(T, job), T), '', 0 }
  end
end

-- the reply stands right behind the prompt that it answers
local score = tonumber(call('ZSCORE', K('history', T), id) or -1)
local reply = call('ZRANGEBYSCORE', K('history', T), '(' .. score, score + 0.5)[1]
local newest = call('ZREVRANGE', K('history', T), 0, 0)[1]
if score < 0 or not reply or reply ~= newest or call('ZCARD', K('jobs', T)) > 0 then
  return { 'kept', '', 0, '', 0 }
end
local before = hash(K('delivery', reply))
local job = {
  turn = id, revision = A.revision, lane = A.lane, author = turn.author,
  seed = A.seed, deadline = now + A.deadline_ms, note = before.note or '{}', cost = 1,
  replaces = reply,
}
local code, detail, til = refusal_reason(T, job)
if code then return { 'refused', '', tonumber(detail) or 0, code, 0, til or 0 } end
return { 'queued', A.job, open_job(T, A.job, job, meta), '', 0 }
