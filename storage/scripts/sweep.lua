-- Handles everything that is due, a few at a time: expired leases, delayed threads, jobs past their
-- deadline. Returns the number of expired leases, the unfinished purges of dead processes, whether to
-- rewrite the append-only file, and the milliseconds until something is due, or -1 for never.

local function due(name)
  return call('ZRANGEBYSCORE', K(name), '-inf', now, 'LIMIT', 0, 32)
end

-- Removes the due threads from a list: an expired thread may have begun anew since, and its numbers
-- then do not say that it is listed.
local function take_due(name)
  local threads = due(name)
  if #threads > 0 then call('ZREM', K(name), unpack(threads)) end
  return threads
end

local function take_over(T)
  local J, job = oldest_job(T)
  if J and job.cancel then
    finish_stopped(T, J, job)
  elseif J and job.first and job.attempts >= A.max_attempts then
    end_with_one_answer(T, J, job)
  elseif J and job.attempts >= A.max_attempts then
    give_up(T, J, job, 'internal', 'its core went away ' .. job.attempts .. ' times')
  elseif J then
    call('HSET', K('job', J), 'state', 'waiting')
  end
  schedule(T)
end

local taken_over = 0
for _, T in ipairs(take_due('leases')) do
  take_over(T)
  taken_over = taken_over + 1
end
for _, T in ipairs(take_due('delayed')) do schedule(T) end
for _, J in ipairs(due('deadlines')) do
  local job = job_of(J)
  if job.state == 'running' and not (job.thread and call('ZSCORE', K('leases'), job.thread)) then
    job.state = 'waiting' -- no core has it, and its lease is gone
  end
  if job.state == 'waiting' and job.thread then
    local was = call('ZRANGE', K('jobs', job.thread), 0, 0)[1] == J
    end_unanswered(job.thread, J, job, 'failed', failed_event('deadline'))
    if was then schedule(job.thread) end
  else
    call('ZREM', K('deadlines'), J)
    -- it is being answered, and may return to the queue
    if job.state == 'running' then call('ZADD', K('deadlines'), now + 60000, J) end
  end
end

-- A job whose record expired while Redis was away ended without being counted down.
if call('ZCARD', K('deadlines')) == 0 then call('DEL', K('open')) end

-- Checks a duel: no core may serve its second answer, or the time for votes may be over.
local function look_at_duel(J)
  local duel = hash(K('duel', J))
  local job = duel.state == 'writing' and job_of(J) or {}
  if not duel.thread or not load_thread(duel.thread) then
    call('ZREM', K('duels'), J)
  elseif duel.state == 'open' then
    reveal(duel.thread, J, duel)
  elseif job.state == 'waiting' and not is_served(job.lane) then
    end_with_one_answer(duel.thread, J, job)
    schedule(duel.thread)
  elseif job.state == 'waiting' or job.state == 'running' then
    call('ZADD', K('duels'), now + LOOK_MS, J)
  else
    call('ZREM', K('duels'), J)
  end
end

for _, J in ipairs(due('duels')) do look_at_duel(J) end

call('ZREMRANGEBYSCORE', K('threads'), '-inf', now - LIFE.threads)
call('XTRIM', K('audit'), 'MAXLEN', '~', A.most_audited)
for _, name in ipairs({ 'dead', 'feedback' }) do
  call('XTRIM', K(name), 'MINID', string.format('%d', now - LIFE[name]))
end

-- These are written all the time: their lifetime is renewed here rather than at each write.
for _, name in ipairs({ 'leases', 'delayed', 'deadlines', 'open', 'arrivals', 'threads', 'resets',
  'marks', 'dead', 'purges', 'duels', 'optouts', 'salt' }) do
  touch(name)
end

local purges = {}
for name, purge in pairs(hash(K('purges'))) do
  if (decoded(purge).at or 0) < now - A.purge_ms then purges[#purges + 1] = name end
end
local gone_since = call('GET', K('rewrite'))
local rewrite = gone_since and tonumber(gone_since) < now - A.rewrite_ms
if rewrite then call('DEL', K('rewrite')) end

local next_due = math.huge
for _, name in ipairs({ 'leases', 'delayed', 'deadlines', 'duels' }) do
  local first = call('ZRANGE', K(name), 0, 0, 'WITHSCORES')
  next_due = math.min(next_due, tonumber(first[2] or math.huge))
end
local due_ms = next_due < math.huge and math.max(0, next_due - now) or -1
return { taken_over, purges, rewrite and 1 or 0, due_ms }
