-- Ends a job whose files cannot be read, with a sentence: its message is not remembered. Returns 1,
-- or 0 where the job does not wait for files.

local T, J = A.thread, A.job
local meta = load_thread(T)
local job = job_of(J)
if not meta or job.state ~= 'waiting' or not job.unread then return 0 end
local first = call('ZRANGE', K('jobs', T), 0, 0)[1] == J
finish_job(T, J, job, 'failed', failed_event(A.code, A.message))
drop_turn(T, job.turn)
if first then schedule(T) end
return 1
