-- Records the messages of a reply, or that one is about to be posted. With `close`, the delivery is
-- over. Returns 1, or 0 if another process has taken the delivery over, or it was over before.

local J = A.job
local meta = hash(K('delivery', J))
if meta.token ~= tostring(A.token) or meta.closed and not A.close then return 0 end
local _, channel, platform = place_names(meta.thread)
call('HSET', K('delivery', J), 'messages', A.messages, 'posting', A.posting)
for _, message in ipairs(cjson.decode(A.messages)) do
  call('SET', K('message', channel, message), meta.thread .. '\n' .. J, 'PX',
    retention_of(meta.thread))
end
if A.close and meta.forgotten then
  call('ZREM', K('deliveries', platform), J)
  call('DEL', K('delivery', J), K('events', J), K('job', J))
  return 1
elseif A.close then
  call('ZREM', K('deliveries', platform), J)
  call('HSET', K('delivery', J), 'closed', now)
  call('HSET', K('delivery', J), 'note', A.note) -- without what can post
  if meta.wiped then call('DEL', K('events', J)) end
else
  call('ZADD', K('deliveries', platform), now + A.delivery_ms, J)
end
renew_retention(meta.thread, 'delivery', J)
return 1
