-- Takes or renews a named lease; with a time of 0, gives it up. Returns 1 if the caller holds it, or
-- held it until now.

local key = K('lease', A.name)
local holder = call('GET', key)
if holder and holder ~= A.holder then return 0 end
if A.for_ms > 0 then
  call('SET', key, A.holder, 'PX', A.for_ms)
else
  call('DEL', key)
end
return 1
