-- A core vouches for its lane for a while; with no time to come, it withdraws.

if A.for_ms > 0 then
  call('ZADD', K('lane', A.lane), now + A.for_ms, A.core)
  touch('lane', A.lane)
else
  call('ZREM', K('lane', A.lane), A.core)
end
call('ZREMRANGEBYSCORE', K('lane', A.lane), '-inf', now)
return call('ZCARD', K('lane', A.lane))
