-- The rules of a space and a channel, people's choices for a thread, and the names of the channel and
-- the bot. Returns name, value, ... of each. Reading renews their lifetimes.

local T, found = A.thread, {}
for i, scope in ipairs(A.scopes) do
  found[i] = call('HGETALL', K('rules', scope))
  if #found[i] > 0 then touch('rules', scope) end
end
local choice = call('HGETALL', K('choice', T))
if #choice > 0 then renew_retention(T, 'choice', T) end
local names = call('HGETALL', K('names', A.scopes[#A.scopes]))
return { found[1], found[2], choice, names }
