-- Takes, renews or (for no time at all) gives up what one process at a time may hold. Returns 1 if
-- it is the caller's, or was.

local key = K('lease', A.name)
local holder = call('GET', key)
if holder and holder ~= A.holder then return 0 end
if A.for_ms > 0 then
  call('SET', key, A.holder, 'PX', A.for_ms)
else
  call('DEL', key)
end
return 1
