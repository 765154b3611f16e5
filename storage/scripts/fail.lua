-- Ends a failed attempt: the job is tried again later, or becomes a dead letter and the person is told.

local T, J = A.thread, A.job
local said = check_fence(T, J, A.gen)
if said == 'fenced' then return said end

local job = job_of(J)
local attempts = job.attempts
if A.retry and said == 'cancelled' then
  finish_stopped(T, J, job)
  schedule(T)
elseif A.retry and attempts < A.max_attempts then
  call('HSET', K('job', J), 'state', 'waiting')
  schedule(T, now + A.backoff_ms * 2 ^ (attempts - 1))
elseif job.first then -- its first answer becomes an ordinary reply
  end_with_one_answer(T, J, job)
  schedule(T)
elseif A.retry then
  give_up(T, J, job, A.code, A.message)
  schedule(T)
else
  finish_job(T, J, job, 'failed', failed_event(A.code, A.message))
  -- a message that cannot be answered is not remembered, and neither is the overwritten reply
  if A.forget then put_aside(T, job.turn, J) end
  if A.forget and job.replaces then drop_turn(T, job.replaces) end
  schedule(T)
end
return said
