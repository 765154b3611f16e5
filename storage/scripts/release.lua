-- Hands a job back at the head of its thread, as if it had not been claimed.

local said = verdict(A.thread, A.job, A.gen)
if said == 'fenced' then return said end
call('HINCRBY', K('job', A.job), 'attempts', -1)
call('HSET', K('job', A.job), 'state', 'waiting')
place(A.thread)
return said
