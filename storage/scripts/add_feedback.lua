-- Keeps what a person thinks of a reply, beside what the core said of how it was written. What they
-- say again stands behind it. Returns how it was written.

local made = call('HGET', K('delivery', A.job), 'made') or ''
call('XADD', K('feedback'), 'MAXLEN', '~', A.most, '*', 'thread', A.thread, 'job', A.job,
  'by', A.by, 'verdict', A.verdict, 'reason', A.reason, 'made', made)
touch('feedback')
return made
