-- Hands a job back at the head of its thread, as if it had not been claimed; one that was stopped
-- ends here.

local said = check_fence(A.thread, A.job, A.gen)
if said == 'fenced' then return said end
if said == 'cancelled' then
  finish_stopped(A.thread, A.job, job_of(A.job))
else
  call('HINCRBY', K('job', A.job), 'attempts', -1)
  call('HSET', K('job', A.job), 'state', 'waiting')
end
schedule(A.thread)
return said
