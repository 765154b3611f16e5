-- Quotas.
--
-- The messages and tokens used in a day, by a person in a space, by a person everywhere and by a
-- channel. A message counts when it is stored, and is refunded if there is no answer. Tokens count as
-- they are published; those of a lost attempt are refunded.

local DAY_MS = 24 * 3600 * 1000

local function add_usage(T, day, person, kind, by)
  local space, channel, platform = place_names(T)
  for _, who in ipairs({ 'person ' .. space .. ':' .. person, 'channel ' .. channel,
    'everywhere ' .. platform .. ':' .. person }) do
    call('HINCRBY', K('used', day), kind .. ' ' .. who, by)
  end
  touch('used', day)
end

local function today()
  return string.format('%d', math.floor((now + A.quota.offset_ms) / DAY_MS))
end

-- `total`: the tokens that the attempt under way has used until now.
local function charge_tokens(T, J, total)
  local day, author, charged = unpack(call('HMGET', K('job', J), 'day', 'author', 'charged'))
  local more = total - (tonumber(charged) or 0)
  if not day or more <= 0 then return end
  add_usage(T, day, author, 'tokens', more)
  call('HSET', K('job', J), 'charged', total)
end

-- The tokens of a duel's first answer stay charged.
local function refund_tokens(T, J, job)
  local charged, first = tonumber(job.charged) or 0, tonumber(job.first) or 0
  if not job.day or charged <= first then return end
  add_usage(T, job.day, job.author, 'tokens', first - charged)
  call('HSET', K('job', J), 'charged', first)
end

local function refund(T, J, job)
  if not job.day then return end
  add_usage(T, job.day, job.author, 'messages', -(tonumber(job.messages) or 1))
  refund_tokens(T, J, job)
end

-- The person restarts the reply: the tokens written so far stay charged, and it counts as a new message.
local function charge_restart(T, J, job)
  if not job.day then return end
  add_usage(T, job.day, job.author, 'messages', 1)
  call('HSET', K('job', J), 'messages', 1)
  call('HDEL', K('job', J), 'charged')
end

-- The code of a quota that is used up, if there is one, and the end of its day.
local function exhausted_quota(T, person)
  local space, channel, platform = place_names(T)
  local who, where, quota = 'person ' .. space .. ':' .. person, 'channel ' .. channel, A.quota
  local all = 'everywhere ' .. platform .. ':' .. person
  local used = call('HMGET', K('used', today()), 'messages ' .. who, 'tokens ' .. who,
    'messages ' .. all, 'tokens ' .. all, 'messages ' .. where, 'tokens ' .. where)
  local limits = { quota.person_messages, quota.person_tokens, quota.all_messages,
    quota.all_tokens, quota.channel_messages, quota.channel_tokens }
  -- in other buckets, as the caller has read it
  local elsewhere = { [3] = quota.elsewhere_messages, [4] = quota.elsewhere_tokens }
  for i, most in ipairs(limits) do
    if most > 0 and (tonumber(used[i]) or 0) + (elsewhere[i] or 0) >= most then
      return i <= 4 and 'quota' or 'quota_channel', (today() + 1) * DAY_MS - quota.offset_ms
    end
  end
end
