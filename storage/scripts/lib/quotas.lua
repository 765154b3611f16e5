-- Quotas.
--
-- The messages and tokens used in a day, by a person in a space, by a person everywhere, by a channel
-- and by a model. A message counts when it is stored, and is refunded if there is no answer. Tokens
-- count as they are published; those of a lost attempt are refunded.

local DAY_MS = 24 * 3600 * 1000

local function add_usage(T, job, kind, by)
  local space, channel, platform = place_names(T)
  local lane = kind == 'messages' and job.home or job.lane -- a duel's message counts for its first model
  for _, who in ipairs({ 'person ' .. space .. ':' .. job.author, 'channel ' .. channel,
    'everywhere ' .. platform .. ':' .. job.author, 'model ' .. (lane or '') }) do
    call('HINCRBY', K('used', job.day), kind .. ' ' .. who, by)
  end
  touch('used', job.day)
end

local function today()
  return string.format('%d', math.floor((now + A.quota.offset_ms) / DAY_MS))
end

-- `total`: the tokens that the attempt under way has used until now.
local function charge_tokens(T, J, total)
  local day, author, lane, charged =
    unpack(call('HMGET', K('job', J), 'day', 'author', 'lane', 'charged'))
  local more = total - (tonumber(charged) or 0)
  if not day or more <= 0 then return end
  add_usage(T, { day = day, author = author, lane = lane }, 'tokens', more)
  call('HSET', K('job', J), 'charged', total)
end

-- The tokens of a duel's first answer stay charged.
local function refund_tokens(T, J, job)
  local charged, first = tonumber(job.charged) or 0, tonumber(job.first) or 0
  if not job.day or charged <= first then return end
  add_usage(T, job, 'tokens', first - charged)
  call('HSET', K('job', J), 'charged', first)
end

local function refund(T, J, job)
  if not job.day then return end
  add_usage(T, job, 'messages', -(tonumber(job.messages) or 1))
  refund_tokens(T, J, job)
end

-- The person restarts the reply: the tokens written so far stay charged, and it counts as a new message,
-- of the day whose quota was looked at.
local function charge_restart(T, J, job)
  if not job.day then return end
  job.day = A.quota and today() or job.day
  add_usage(T, job, 'messages', 1)
  call('HSET', K('job', J), 'messages', 1, 'day', job.day)
  call('HDEL', K('job', J), 'charged')
end

-- The code of a quota that is used up, if there is one, and the end of its day.
local function exhausted_quota(T, person)
  local space, channel, platform = place_names(T)
  local who, where, quota = 'person ' .. space .. ':' .. person, 'channel ' .. channel, A.quota
  local all = 'everywhere ' .. platform .. ':' .. person
  local fields = { 'messages ' .. who, 'tokens ' .. who, 'messages ' .. all, 'tokens ' .. all,
    'messages ' .. where, 'tokens ' .. where }
  local used = call('HMGET', K('used', today()), unpack(fields))
  local moved = call('HMGET', K('spent', today()), unpack(fields))
  local limits = { quota.person_messages, quota.person_tokens, quota.all_messages,
    quota.all_tokens, quota.channel_messages, quota.channel_tokens }
  -- in other buckets, as the caller has read it
  local elsewhere = { [3] = quota.elsewhere_messages, [4] = quota.elsewhere_tokens }
  for i, most in ipairs(limits) do
    local total = (tonumber(used[i]) or 0) + (tonumber(moved[i]) or 0) + (elsewhere[i] or 0)
    if most > 0 and total >= most then
      return i <= 4 and 'quota' or 'quota_channel', (today() + 1) * DAY_MS - quota.offset_ms
    end
  end
end

-- Takes `by` from a day's count. Where the day may still go on, quotas see it elsewhere.
local function move_usage(day, field, by, recent)
  if recent and by ~= 0 then
    call('HINCRBY', K('spent', day), field, by)
    touch('spent', day)
  end
  if call('HINCRBY', K('used', day), field, -by) <= 0 then call('HDEL', K('used', day), field) end
end

-- Forgets what a person used in a space, day by day. What they used around today is kept apart until
-- the day is over, so that forgetting renews no quota.
local function forget_usage(space, person)
  local whole, newest = space .. ':' .. person, math.floor(now / DAY_MS) + 1
  local everywhere = string.match(space, '^[^:]+') .. ':' .. person
  for number = newest - 32, newest do
    local day = string.format('%d', number)
    for _, kind in ipairs({ 'messages ', 'tokens ' }) do
      -- the channel of one person's direct messages is named by that person
      for _, field in ipairs({ kind .. 'channel ' .. whole, kind .. 'person ' .. whole }) do
        local by = tonumber(call('HGET', K('used', day), field))
        if by then
          move_usage(day, field, by, number >= newest - 2)
          if field == kind .. 'person ' .. whole then
            move_usage(day, kind .. 'everywhere ' .. everywhere, by, number >= newest - 2)
          end
        end
      end
    end
  end
end
