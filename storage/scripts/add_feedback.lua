-- Appends a person's rating of a reply, with the model and sampling that the core recorded for the
-- reply. A later rating by the same person is appended too. With `collect`, the reply becomes a sample
-- for training. Returns that model and sampling.

local made = call('HGET', K('delivery', A.job), 'made') or ''
call('XADD', K('feedback'), 'MAXLEN', '~', A.most, '*', 'thread', A.thread, 'job', A.job,
  'by', A.by, 'verdict', A.verdict, 'reason', A.reason, 'made', made)
touch('feedback')
if A.collect and load_thread(A.thread) then vote_on_sample(A.thread, A.job, A.by, A.verdict) end
return made
