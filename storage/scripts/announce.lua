-- Announces a core in its lane for a limited time, with how much its model reads; with a time of 0,
-- removes it.

if A.for_ms > 0 then
  call('ZADD', K('lane', A.lane), now + A.for_ms, A.core)
  touch('lane', A.lane)
  if A.reads > 0 then call('SET', K('reads', A.lane), A.reads, 'PX', LIFE.reads) end
else
  call('ZREM', K('lane', A.lane), A.core)
end
call('ZREMRANGEBYSCORE', K('lane', A.lane), '-inf', now)
return call('ZCARD', K('lane', A.lane))
