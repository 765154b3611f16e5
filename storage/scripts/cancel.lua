-- Stops a reply. A waiting job ends here; a running one is ended by its core, with the text so far.
-- Returns 1, or 0 if it has ended already.

local J = A.job
local job = job_of(J)
if job.state == 'waiting' then
  local first = call('ZRANGE', K('jobs', job.thread), 0, 0)[1] == J
  end_unanswered(job.thread, J, job, 'cancelled', cancelled_event('person'))
  if first then schedule(job.thread) end
  return 1
elseif job.state == 'running' then
  call('HSET', K('job', J), 'cancel', 1)
  return 1
end
return 0
