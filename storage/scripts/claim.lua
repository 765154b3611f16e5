-- Gives a core the next threads of its lane, each with a lease. Returns a row for each: the job's
-- id and fields, gen, epoch, the milliseconds since it came in, and the thread's window if it is short.
-- A core reads a long thread with window.lua, from the version that it has already.

local LITTLE = 16

local function lease(T, meta, J, job)
  job.thread = T
  refund_tokens(T, J, job) -- of a lost attempt
  if (meta.duel or '') ~= '' then fix_duel(T, meta.duel) end
  job.state, job.attempts, job.starts = 'running', job.attempts + 1, job.starts + 1
  call('HSET', K('job', J), 'state', job.state, 'attempts', job.attempts, 'starts', job.starts)
  local gen = meta.gen + 1
  call('HSET', K('thread', T), 'state', 'leased', 'running', J, 'gen', gen)
  call('ZADD', K('leases'), now + A.lease_ms, T)
  emit(T, J, cjson.encode({ t = 'started', attempt = job.starts }))
  return gen
end

-- Redis may have been away at the deadline, without a sweep since. A job that has a first answer is
-- left to the sweep, to keep this script short.
local function ended_late(T, J, job)
  if (tonumber(job.deadline) or now) >= now then return false end
  if job.first then
    schedule(T, now)
  else
    finish_job(T, J, job, 'failed', failed_event('deadline'))
    schedule(T)
  end
  return true
end

local claims = {}
while #claims < A.most do
  local spent = {}
  local T = pop_next(A.lane, '', 0, spent)
  if not T then break end
  local left = call('DECR', K('waiting', A.lane))
  local meta = load_thread(T)
  local J, job = nil, nil
  if meta then J, job = oldest_job(T) end
  if meta and not J then
    call('HSET', K('thread', T), 'state', 'idle')
  elseif J and not ended_late(T, J, job) then
    charge(A.lane, spent, job.cost)
    local gen = lease(T, meta, J, job)
    local little = call('HLEN', K('turns', T)) <= LITTLE and window(T, meta, 0, job.turn)
    claims[#claims + 1] = { J, list_of(job), gen, meta.epoch, now - (job.at or now), little }
  end
  if left == 0 then break end -- to look further would only take the tree apart
end
return claims
