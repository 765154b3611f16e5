-- Stores a message: drops duplicates, keeps its turn, and opens a job if it asks for an answer.
-- Returns outcome, job, position, code, and whether the thread waits to be seeded.
-- A refusal that is not delivered has no job.

local T, id = A.thread, A.turn
local space, channel = place_names(T)
local seen = K('seen', T .. ' ' .. id)

local function mark(key, value)
  call('SET', key, value, 'PX', LIFE.seen)
end

local function known()
  for _, event in ipairs(A.events) do
    if call('EXISTS', K('seen', event)) == 1 then return true end
  end
  local before = call('GET', seen)
  -- an addressed copy upgrades one that was not addressed
  return before == 'addressed' or (before and not A.addressed)
end

local function remember()
  for _, event in ipairs(A.events) do mark(K('seen', event), 1) end
  mark(seen, A.addressed and 'addressed' or 'unaddressed')
end

-- Makes room for a message that needs no answer, by dropping the oldest one.
local function make_room()
  if call('ZCARD', K('mailbox', T)) < A.limits.mailbox then return true end
  if call('ZCARD', K('jobs', T)) > 0 then return false end
  drop_turn(T, call('ZRANGE', K('mailbox', T), 0, 0)[1])
  return true
end

-- Keeps the quoted message as a turn before the message. An edit or a deletion finds it by its
-- `message` key, or by `quoted` if that belongs to another thread.
local function keep_quoted(quote, known)
  call('HSET', K('turns', T), quote.id, apply_early_edit(T, quote.id, quote.record))
  call('ZADD', K('mailbox', T), call('HINCRBY', K('thread', T), 'sequence', 1), quote.id)
  mark(K('seen', T .. ' ' .. quote.id), 'seeded')
  call('ZADD', K('person', space .. ':' .. quote.author), now, T)
  touch('person', space .. ':' .. quote.author)
  if known then
    call('SADD', K('quoted', channel, quote.id), T)
    renew_retention(T, 'quoted', channel, quote.id)
  else
    call('SET', K('message', channel, quote.id), T .. '\n' .. quote.id, 'PX', retention_of(T))
  end
end

-- The message's record. If the thread has the quoted message, a pointer is enough; else the quote
-- becomes a turn before it, or a part of its text.
local function record_of()
  local quote = type(A.quote) == 'table' and A.quote
  if not quote then return A.record end
  local known = call('GET', K('message', channel, quote.id))
  local where, turn = string.match(known or '', '^(.*)\n(.*)$')
  local has = call('HEXISTS', K('turns', T), quote.id) == 1
    or where == T and call('HEXISTS', K('turns', T), turn) == 1
  if has then return quote.pointing end
  if quote.record == '' or is_behind_mark(T, quote.author, quote.at_ms) then return quote.quoting end
  keep_quoted(quote, known)
  return A.record
end

local function keep_turn()
  if call('HEXISTS', K('turns', T), id) == 1 then return end
  call('HSET', K('turns', T), id, apply_early_edit(T, id, record_of()))
  call('ZADD', K('mailbox', T), call('HINCRBY', K('thread', T), 'sequence', 1), id)
  local message = K('message', channel, id)
  call('SET', message, T .. '\n' .. id, 'PX', retention_of(T))
  call('ZADD', K('person', space .. ':' .. A.author), now, T)
  touch('person', space .. ':' .. A.author)
  if now % 16 == 0 then
    call('ZREMRANGEBYSCORE', K('person', space .. ':' .. A.author), '-inf', now - LIFE.person)
  end
  touch_thread(T, 'turns', 'mailbox', 'history', 'counts', 'changes')
end

-- The waiting job for the same person's previous message, if both can be answered together.
local function joinable_job()
  local J = not A.alone and call('ZRANGE', K('jobs', T), -1, -1)[1]
  local newest = J and call('ZRANGE', K('mailbox', T), -1, -1)[1]
  if not newest then return nil end
  local full = call('ZCARD', K('mailbox', T)) >= A.limits.mailbox
  if full or call('ZSCORE', K('history', T), id) then return nil end
  local job = job_of(J)
  local together = job.turn == newest and job.author == A.author and job.lane == A.lane
    and (not A.quota or job.day == today()) -- a message counts on its own day
  if together and job.state == 'waiting' and not job.replaces and not job.alone then return J, job end
end

local function join(J, job)
  if call('ZSCORE', K('mailbox', T), id) then -- the job reads it already
    call('HSET', K('job', J), 'covers', id .. '\n' .. (job.covers or ''))
  else
    keep_turn()
    call('HSET', K('job', J), 'turn', id, 'covers', (job.covers or '') .. job.turn .. '\n')
  end
  if A.quota and job.day then
    call('HINCRBY', K('job', J), 'messages', 1)
    add_usage(T, job, 'messages', 1)
  end
  return { 'queued', J, position(job.lane, path_of(T, job), T) }
end

-- A person gets a refusal once in a while in each place: a flood gets one sentence.
local function is_news(code)
  local key = K('told', channel .. ' ' .. A.author .. ' ' .. code)
  return call('SET', key, 1, 'NX', 'PX', LIFE.told) and true
end

local meta = load_thread(T)
if known() then return { 'duplicate', A.job } end
if not A.addressed then
  if not meta or not A.read or not make_room() then return { 'ignored' } end
  remember()
  keep_turn()
  return { 'kept' }
end

local job = {
  turn = id, revision = A.revision, lane = A.lane, author = A.author,
  seed = A.seed, deadline = now + A.deadline_ms, note = A.note, cost = A.cost,
}
if A.alone then job.alone = 1 end
if A.duel and is_served(A.duel.lane) then -- else it is an ordinary reply
  job.duel, job.votes, job.for_ms, job.alone = A.duel.lane, A.duel.votes, A.duel.for_ms, 1
end
if A.unread then job.unread = 1 end
if A.measures then job.measures = 1 end
if A.terms and A.terms ~= '' then job.terms = A.terms end
local code, detail, til = refusal_reason(T, job)
remember()
if code then
  local J = A.tell and is_news(code) and A.job or ''
  if J ~= '' then refuse(T, J, job, code, detail, til) end
  return refused(J, code, detail, til)
end
local waits = not meta and A.backfill_ms > 0
meta = meta or begin_thread(T)
-- the retention of its place may have changed
if A.keep_ms ~= (tonumber(meta.retention) or 0) then
  if A.keep_ms > 0 then
    call('HSET', K('thread', T), 'retention', A.keep_ms)
  else
    call('HDEL', K('thread', T), 'retention')
  end
end
retentions[T] = A.keep_ms > 0 and A.keep_ms or LIFE.thread
local J, waiting = joinable_job()
if J then return join(J, waiting) end
keep_turn()
local at = open_job(T, A.job, job, meta, waits and now + A.backfill_ms)
return { 'queued', A.job, at, '', waits and 1 or 0 }
