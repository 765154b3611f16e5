-- Ends a job whose files cannot be read, with a sentence, and forgets its message. Returns 1, or 0 if
-- the job does not wait for these files.

local T, J = A.thread, A.job
local meta = load_thread(T)
local job = job_of(J)
if not meta or job.state ~= 'waiting' or not job.unread then return 0 end
local sources = decoded(call('HGET', K('turns', T), job.turn) or '').sources
if A.sources ~= '' and sources and sources ~= A.sources then return 0 end
local first = call('ZRANGE', K('jobs', T), 0, 0)[1] == J
finish_job(T, J, job, 'failed', failed_event(A.code, A.message))
drop_turn(T, job.turn)
if A.quoted ~= '' and call('ZSCORE', K('mailbox', T), A.quoted) then drop_turn(T, A.quoted) end
if job.replaces then drop_turn(T, job.replaces) end -- it is overwritten by the sentence
if first then schedule(T) end
return 1
