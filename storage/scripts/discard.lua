-- Removes a thread with one question and its reply, without a mark and without an entry in the audit
-- log: a one-off job or a test message.

local T, J = A.thread, A.job
local space, channel, platform = place_names(T)
if load_thread(T) then forget_thread(T, 'reset') end
call('DEL', K('thread', T), K('job', J), K('events', J), K('delivery', J), K('seen', T .. ' ' .. A.turn),
  K('message', channel, A.turn))
call('ZREM', K('threads'), T)
call('ZREM', K('deliveries', platform), J)
call('ZREM', K('person', space .. ':' .. A.author), T)
call('ZREM', K('asked', space .. ':' .. A.author), J)
return 1
