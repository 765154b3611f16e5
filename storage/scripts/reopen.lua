-- Opens the newest delivery to a reply's messages again, so that they are written once more. Called
-- by a holder that wrote after its lease had ended, perhaps over newer text. A regeneration without
-- words leaves the reply that it replaces as it is: then that one is written once more.

local function last_writer(J)
  local newer = call('HGET', K('delivery', J), 'last')
  return newer and last_writer(newer) or J
end

local function reopen(J)
  local T = call('HGET', K('delivery', J), 'thread')
  if not T or call('EXISTS', K('events', J)) == 0 then return end -- its text was forgotten meanwhile
  local _, _, platform = place_names(T)
  call('HDEL', K('delivery', J), 'closed')
  call('HINCRBY', K('delivery', J), 'token', 1) -- so that a late close by its last holder has no effect
  call('ZADD', K('deliveries', platform), now, J)
  touch('deliveries', platform)
end

local ENDS_WITH_WORDS = { done = true, failed = true, dead = true }

local J = last_writer(A.job)
while J do
  local state, before = job_of(J).state, call('HGET', K('delivery', J), 'after') or ''
  local has_words = ENDS_WITH_WORDS[state] or shown_text(J) ~= ''
  if has_words or before == '' then
    reopen(J)
    break
  end
  if state ~= 'cancelled' then reopen(J) end
  J = before
end
