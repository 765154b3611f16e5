-- Leases a platform's open deliveries without a holder to the caller. A delivery to the messages of
-- another reply waits until that reply's delivery is closed.

local taken = {}
-- without new events, nothing else ends the words of the last ones
call('XTRIM', K('news', A.platform), 'MINID', now - NEWS_MS)
touch('news', A.platform)
touch('deliveries', A.platform)
local free = call('ZRANGEBYSCORE', K('deliveries', A.platform), '-inf', now, 'LIMIT', 0, A.most)
for _, J in ipairs(free) do
  if call('EXISTS', K('delivery', J)) == 0 then
    call('ZREM', K('deliveries', A.platform), J)
  else
    call('HINCRBY', K('delivery', J), 'token', 1)
    call('HSET', K('delivery', J), 'holder', A.holder)
    call('ZADD', K('deliveries', A.platform), now + A.delivery_ms, J)
    taken[#taken + 1] = { J, call('HGETALL', K('delivery', J)) }
  end
end
return taken
