-- Opens the newest delivery to a reply's messages again, so that they are written once more. Called
-- by a holder that wrote after its lease had ended, perhaps over newer text.

local function last_writer(J)
  local newer = call('HGET', K('delivery', J), 'last')
  return newer and last_writer(newer) or J
end

local J = last_writer(A.job)
local T = call('HGET', K('delivery', J), 'thread')
if T and call('EXISTS', K('events', J)) == 1 then -- else its text was forgotten meanwhile
  local _, _, platform = place_names(T)
  call('HDEL', K('delivery', J), 'closed')
  call('HINCRBY', K('delivery', J), 'token', 1) -- so that a late close by its last holder has no effect
  call('ZADD', K('deliveries', platform), now, J)
  touch('deliveries', platform)
end
