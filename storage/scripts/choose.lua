-- Stores people's choices for a thread: a model and a persona, or nothing.

local T = A.thread
call('DEL', K('choice', T))
for _, name in ipairs({ 'model', 'persona' }) do
  if A[name] ~= '' then call('HSET', K('choice', T), name, A[name]) end
end
renew_retention(T, 'choice', T)
return 1
