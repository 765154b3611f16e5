-- Forgets a thread; or, for a channel or a space, raises its reset counter. Its threads are compared
-- with the counter when they are next used, and purge.lua deletes the rest. Returns the number of
-- turns forgotten. With `only_asker`, returns -1 and changes nothing if somebody else waits for a
-- reply in the thread.

local meta = A.thread and load_thread(A.thread)
for _, J in ipairs(meta and A.only_asker and call('ZRANGE', K('jobs', A.thread), 0, -1) or {}) do
  local job = job_of(J)
  if job.state and (job.asker or job.author) ~= A.only_asker then return -1 end
end
audit(A.place, A.by, 'reset', '')
if A.thread then
  add_mark('thread ' .. A.thread)
  forget_letters(function(letter) return letter.thread == A.thread end)
  return meta and forget_thread(A.thread, 'reset') or 0
end
call('HINCRBY', K('resets'), A.scope, 1)
add_mark(A.kind .. ' ' .. A.scope)
call('HSET', K('purges'), A.kind .. ' ' .. A.scope, cjson.encode({ cursor = '0', at = now }))
-- replies under way and waiting jobs end now, not only when their turn comes
local gone = 0
local function forget(T)
  local _, turns = load_thread(T)
  gone = gone + (turns or 0)
end
for _, key in ipairs({ 'leases', 'delayed' }) do
  for _, T in ipairs(call('ZRANGE', K(key), 0, -1)) do forget(T) end
end
for _, J in ipairs(call('ZRANGE', K('deadlines'), 0, -1)) do
  local T = call('HGET', K('job', J), 'thread')
  if T then forget(T) end
end
return gone
