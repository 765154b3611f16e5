-- Forgets a thread, or raises the number that a channel's or a space's threads are compared with
-- when they are next touched. Returns how many turns went, of a thread.

note(A.place, A.by, 'reset', '')
if A.thread then
  call('HSET', K('marks'), 'thread ' .. A.thread, now)
  return enter(A.thread) and wipe(A.thread, 'reset') or 0
end
call('HINCRBY', K('resets'), A.scope, 1)
call('HSET', K('marks'), A.kind .. ' ' .. A.scope, now)
-- what is under way or waits ends now, not when its turn would have come
for _, key in ipairs({ 'leases', 'delayed' }) do
  for _, T in ipairs(call('ZRANGE', K(key), 0, -1)) do enter(T) end
end
for _, J in ipairs(call('ZRANGE', K('deadlines'), 0, -1)) do
  local T = call('HGET', K('job', J), 'thread')
  if T then enter(T) end
end
return 0
