-- Quotas.
--
-- What was used of a day, by person and by channel: in messages when they are taken in, in tokens
-- when they are answered. A message that got no answer is given back.

local DAY_MS = 24 * 3600 * 1000

local function use(T, day, person, kind, by)
  local space, channel = places(T)
  for _, who in ipairs({ 'person ' .. space .. ':' .. person, 'channel ' .. channel }) do
    call('HINCRBY', K('used', day), kind .. ' ' .. who, by)
  end
  touch('used', day)
end

local function today()
  return string.format('%d', math.floor((now + A.quota.offset_ms) / DAY_MS))
end

local function refund(T, job)
  if job.day then use(T, job.day, job.author, 'messages', -(tonumber(job.messages) or 1)) end
end

-- The code of the quota that is used up, if one is, and when its day ends.
local function used_up(T, person)
  local space, channel = places(T)
  local who, where, quota = 'person ' .. space .. ':' .. person, 'channel ' .. channel, A.quota
  local used = call('HMGET', K('used', today()), 'messages ' .. who, 'tokens ' .. who,
    'messages ' .. where, 'tokens ' .. where)
  local limits = { quota.person_messages, quota.person_tokens, quota.channel_messages,
    quota.channel_tokens }
  for i, most in ipairs(limits) do
    if most > 0 and (tonumber(used[i]) or 0) >= most then
      return i <= 2 and 'quota' or 'quota_channel', (today() + 1) * DAY_MS - quota.offset_ms
    end
  end
end
