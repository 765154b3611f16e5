-- The positions of jobs in the queue; 0 for one that does not wait.

local at = {}
for i, J in ipairs(A.jobs) do
  local job = job_of(J)
  at[i] = 0
  if job.state == 'waiting' then
    at[i] = math.max(position(job.lane, path_of(job.thread, job), job.thread), 1)
  end
end
return at
