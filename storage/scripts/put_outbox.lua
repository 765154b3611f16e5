-- Stores a question that is not posted yet. Returns whether there was room.

local box = K('outbox', A.name)
if call('HEXISTS', box, A.id) == 0 and call('HLEN', box) >= A.most then return 0 end
call('HSET', box, A.id, A.text)
touch('outbox', A.name)
return 1
