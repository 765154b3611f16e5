-- What admins have set for a space and a channel. Returns name, value, ... of each. What holds is
-- asked for with every message, which keeps it alive.

local found = {}
for i, scope in ipairs(A.scopes) do
  found[i] = call('HGETALL', K('rules', scope))
  if #found[i] > 0 then touch('rules', scope) end
end
return found
