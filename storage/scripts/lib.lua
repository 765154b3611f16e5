-- What the scripts share. KEYS[1] is the base of the bucket's keys; ARGV[1] a JSON object.

local call = redis.call
local B = KEYS[1]
local A = cjson.decode(ARGV[1])

local function K(name, ...)
  return B .. string.format(KEY[name], ...)
end

local function touch(name, ...)
  call('PEXPIRE', K(name, ...), LIFE[name])
end

-- How long a thread and what belongs to it is kept: its place's own term, or everyone's.
local terms = {}
local function term(T)
  terms[T] = terms[T] or tonumber(call('HGET', K('thread', T), 'retention')) or LIFE.thread
  return terms[T]
end

local function keep(T, name, ...)
  call('PEXPIRE', K(name, ...), term(T))
end

-- A person's threads may have different terms: a list of theirs lives as long as the longest.
local function keep_longest(T, name, who)
  if call('PTTL', K(name, who)) < term(T) then keep(T, name, who) end
end

-- Redis's clock is the only one: milliseconds since the epoch.
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

local function hash(key)
  local flat, fields = call('HGETALL', key), {}
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  return fields
end

-- A stored record as a table; one that cannot be read is an empty one, and stops nobody.
local function decoded(record)
  local readable, value = pcall(cjson.decode, record)
  return readable and type(value) == 'table' and value or {}
end

local function split(text, separator)
  local parts = {}
  for part in string.gmatch(text, '[^' .. separator .. ']+') do parts[#parts + 1] = part end
  return parts
end

-- platform:space:channel:thread -> the names that shares, limits and resets go by
local function places(T)
  local part = split(T, ':')
  local space = part[1] .. ':' .. part[2]
  return space, space .. ':' .. part[3], part[1]
end

-- Reply events ----------------------------------------------------------------------------------

-- A reply's events stay with it. The news bring each to whoever follows it right now, with its
-- place among them, and are gone after seconds.
local function emit(J, platform, event)
  local events = K('events', J)
  local entry = call('XADD', events, 'MAXLEN', '~', 5000, '*', 'e', event)
  call('XADD', K('news', platform), 'MINID', now - 10000, '*', 'j', J, 'n', call('XLEN', events),
    'i', entry, 'e', event)
end

-- The fair order --------------------------------------------------------------------------------
-- A tree: lane -> space -> channel -> person -> threads in order of arrival. Each node keeps its
-- children by virtual time; who is served moves back by the cost of what was served, who comes
-- anew enters where the last one served stood: in front of all that were served since, behind all
-- that also wait for their first turn. So shares are equal at each level, whatever waits below.

local function nodes(path)
  local names, node = { '' }, ''
  for i, child in ipairs(path) do
    node = i == 1 and child or node .. '/' .. child
    names[i + 1] = node
  end
  return names
end

local function push(lane, path, T, seq)
  local names = nodes(path)
  for i, child in ipairs(path) do
    local key = K('ready', lane, names[i])
    if not call('ZSCORE', key, child) then
      local clock = call('HGET', K('clock', lane), names[i])
      local first = clock and { child, clock } or call('ZRANGE', key, 0, 0, 'WITHSCORES')
      -- the fraction keeps arrivals in their order, and moves the clock on: none can starve
      call('ZADD', key, (tonumber(first[2]) or 0) + call('ZCARD', key) / 1024, child)
    end
    touch('ready', lane, names[i])
  end
  call('ZADD', K('ready', lane, names[#names]), seq, T)
  touch('ready', lane, names[#names])
  call('INCR', K('waiting', lane))
  touch('waiting', lane)
end

-- Takes T out of the order; it need not be in it.
local function pull(lane, path, T)
  local names = nodes(path)
  if call('ZREM', K('ready', lane, names[#names]), T) == 1 then call('DECR', K('waiting', lane)) end
end

-- Takes the next thread out of the order. `spent` collects who is served: node, child.
local function descend(lane, node, depth, spent)
  local key = K('ready', lane, node)
  if depth == 3 then return call('ZPOPMIN', key)[1] end
  while true do
    local child = call('ZRANGE', key, 0, 0)[1]
    if not child then return nil end
    local below = node == '' and child or node .. '/' .. child
    local T = descend(lane, below, depth + 1, spent)
    if T then
      spent[#spent + 1] = { node, child }
      return T
    end
    call('ZREM', key, child)
    call('HDEL', K('clock', lane), below)
  end
end

local function charge(lane, spent, cost)
  for _, share in ipairs(spent) do
    local node, child = share[1], share[2]
    local stands = call('ZINCRBY', K('ready', lane, node), cost, child)
    call('HSET', K('clock', lane), node, tonumber(stands) - cost)
  end
  touch('clock', lane)
end

-- About how many threads are served until T is: exact for one person alone, else what equal
-- shares come to.
local function position(lane, path, T)
  local names = nodes(path)
  local rank = call('ZRANK', K('ready', lane, names[4]), T)
  if not rank then return 0 end
  local before = rank + 1
  for level = 3, 1, -1 do before = before * call('ZCARD', K('ready', lane, names[level])) end
  return math.max(math.min(before, tonumber(call('GET', K('waiting', lane))) or 0), 1)
end

-- Threads and jobs ------------------------------------------------------------------------------

-- The keys that a bucket or a platform has one of are renewed by sweep.lua and take.lua instead,
-- which every process runs again and again.
local function touch_thread(T, ...)
  keep(T, 'thread', T)
  for _, name in ipairs({ ... }) do keep(T, name, T) end
  call('ZADD', K('threads'), now, T)
end

-- A job's fields. A poisoned one lacks none that the scripts reckon with: it must stop nobody.
local function job_of(J)
  local job = hash(K('job', J))
  for _, name in ipairs({ 'author', 'lane', 'turn' }) do job[name] = job[name] or '' end
  for _, name in ipairs({ 'arrival', 'attempts', 'starts', 'cost' }) do
    job[name] = tonumber(job[name]) or 0
  end
  if job.state and not job.thread then job.thread = call('HGET', K('delivery', J), 'thread') or nil end
  return job
end

local function head(T)
  while true do
    local J = call('ZRANGE', K('jobs', T), 0, 0)[1]
    if not J then return nil end
    local job = job_of(J)
    if job.state then return J, job end
    call('ZREM', K('jobs', T), J) -- its record has expired
  end
end

local function path_of(T, job)
  local space, channel = places(T)
  return { space, channel, job.author ~= '' and job.author or '-' }
end

local function unplace(T, meta)
  if meta.state == 'ready' then
    pull(meta.lane, split(meta.path, '\n'), T)
  elseif meta.state == 'delayed' then
    call('ZREM', K('delayed'), T)
  elseif meta.state == 'leased' then
    call('ZREM', K('leases'), T)
    call('HINCRBY', K('thread', T), 'gen', 1) -- fences whoever held it
  end
end

local function wake(lane)
  local length = call('LPUSH', K('wake', lane), 1)
  if length == 1 then touch('wake', lane) end
  if length > 64 then call('LTRIM', K('wake', lane), 0, 63) end
end

-- Puts a thread where its oldest job says: nowhere, into the order, or aside until `later`.
local function place(T, later, meta)
  meta = meta or hash(K('thread', T))
  if not meta.state then -- it has expired: what waits there ends at its deadline
    call('ZREM', K('leases'), T)
    call('ZREM', K('delayed'), T)
    return
  end
  unplace(T, meta)
  local J, job = head(T)
  if not J then
    call('HSET', K('thread', T), 'state', 'idle', 'running', '')
    call('HDEL', K('thread', T), 'path')
  elseif later then
    call('ZADD', K('delayed'), later, T)
    call('HSET', K('thread', T), 'state', 'delayed', 'running', '')
  else
    local path = path_of(T, job)
    push(job.lane, path, T, job.arrival)
    call('HSET', K('thread', T), 'state', 'ready', 'running', '', 'lane', job.lane,
      'path', table.concat(path, '\n'))
    wake(job.lane)
  end
  return J, job
end

local function count(T, person, by)
  local space, channel = places(T)
  for _, field in ipairs({ 'all', 'channel ' .. channel, 'person ' .. space .. ':' .. person }) do
    if call('HINCRBY', K('open'), field, by) <= 0 then call('HDEL', K('open'), field) end
  end
end

-- Quotas --------------------------------------------------------------------------------------
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

-- The end of a job, whichever: its event, and no trace among what is open. The caller places the
-- thread anew.
local function finish(T, J, job, state, event)
  local _, _, platform = places(T)
  if state == 'failed' or state == 'dead' then refund(T, job) end
  call('ZREM', K('jobs', T), J)
  call('ZREM', K('deadlines'), J)
  call('HSET', K('job', J), 'state', state)
  count(T, job.author, -1)
  emit(J, platform, event)
end

-- `til`: when it can be asked again, in milliseconds, where that is known.
local function failed(code, message, til)
  local event = { t = 'failed', code = code, message = message or '' }
  event['until'] = (til or 0) / 1000
  return cjson.encode(event)
end

local function cancelled(by)
  return cjson.encode({ t = 'cancelled', by = by })
end

local function bury(T, J, job, code, message)
  call('XADD', K('dead'), 'MAXLEN', '~', 10000, '*', 'job', J, 'thread', T, 'turn', job.turn or '',
    'author', job.author or '', 'attempts', job.attempts or 0, 'code', code, 'message', message)
  finish(T, J, job, 'dead', failed(code, message))
end

-- A changed turn is read again by whoever has an older version; one that is gone, too.
local function changed(T, id)
  local version = call('HINCRBY', K('thread', T), 'version', 1)
  call('ZADD', K('changes', T), version, id)
  if version % 256 == 0 and call('ZCARD', K('changes', T)) > 512 then
    local old = call('ZPOPMIN', K('changes', T), 256)
    call('HSET', K('thread', T), 'floor', old[#old])
  end
  keep(T, 'changes', T)
end

local function drop(T, id)
  call('ZREM', K('history', T), id)
  call('ZREM', K('mailbox', T), id)
  call('HDEL', K('turns', T), id)
  call('HDEL', K('counts', T), id)
  changed(T, id)
end

-- A turn's record, with an edit that overtook it.
local function edited(T, id, record)
  local edit = call('GET', K('edited', T .. ' ' .. id))
  if not edit then return record end
  local turn, newer = cjson.decode(record), decoded(edit)
  turn.text, turn.revision = newer.text, newer.revision
  return cjson.encode(turn)
end

-- A reply becomes history with what was read for it, or stands where the one stood that it replaces.
-- No record: nothing was shown. No count: it is made for the next prompt.
local function keep_reply(T, J, job, record, count)
  local function append(behind)
    if record == '' then return end
    call('HSET', K('turns', T), J, record)
    if count then call('HSET', K('counts', T), J, count) end
    call('ZADD', K('history', T), behind + 0.5, J)
    changed(T, J)
  end
  if job.replaces then
    local score = call('ZSCORE', K('history', T), job.replaces)
    if not score then return end
    drop(T, job.replaces)
    return append(score - 0.5)
  end
  local upto = call('ZSCORE', K('mailbox', T), job.turn)
  -- read already, with a later message, before it was known to be addressed
  if not upto then return append(call('ZSCORE', K('history', T), job.turn) or 0) end
  for _, id in ipairs(call('ZRANGEBYSCORE', K('mailbox', T), '-inf', upto)) do
    call('ZADD', K('history', T), call('ZSCORE', K('mailbox', T), id), id)
    call('ZREM', K('mailbox', T), id)
    changed(T, id)
  end
  append(upto) -- just behind the turn that it answers, whatever came in meanwhile
end

local function characters(text)
  return select(2, string.gsub(text, '[^\128-\191]', ''))
end

local function first_characters(text, number)
  local at = 0
  for start in string.gmatch(text, '()[^\128-\191]') do
    if at == number then return string.sub(text, 1, start - 1) end
    at = at + 1
  end
  return text
end

-- What was shown of a reply. A delta that was sent twice stands at the same offset.
local function shown(J)
  local text, length = '', 0
  for _, entry in ipairs(call('XRANGE', K('events', J), '-', '+')) do
    local event = decoded(entry[2][2])
    if event.t == 'started' then text, length = '', 0 end
    if event.t == 'delta' then
      if event.offset < length then text = first_characters(text, event.offset) end
      text = text .. event.text
      length = event.offset + characters(event.text)
    end
  end
  return text
end

-- The end of a stopped reply that no core will end: what was shown is the reply.
local function stop(T, J, job)
  local text, record = shown(J), ''
  if text ~= '' then
    record = cjson.encode({ v = '1', role = 'assistant', author = job.lane, name = '', text = text,
      at = string.format('%.3f', now / 1000), answers = job.turn, finish = 'cancelled' })
  end
  keep_reply(T, J, job, record)
  touch_thread(T, 'turns', 'history', 'counts')
  local usage = { prompt_tokens = 0, reply_tokens = 0, cached_tokens = 0, dropped_turns = 0 }
  finish(T, J, job, 'done', cjson.encode({
    t = 'done', text = text, finish_reason = 'cancelled', usage = usage,
  }))
end

-- Forgets a thread: what it holds, what is under way, what waits. Returns how many turns went.
local function wipe(T, by)
  local turns = call('HKEYS', K('turns', T))
  for _, id in ipairs(turns) do -- a reply's words are in its events too
    if call('HGET', K('delivery', id), 'closed') then call('DEL', K('events', id)) end
  end
  for _, J in ipairs(call('ZRANGE', K('jobs', T), 0, -1)) do
    local job = job_of(J)
    if job.state then finish(T, J, job, 'cancelled', cancelled(by)) end
  end
  call('DEL', K('jobs', T), K('turns', T), K('history', T), K('mailbox', T), K('counts', T),
    K('changes', T))
  place(T)
  call('HINCRBY', K('thread', T), 'epoch', 1)
  call('HSET', K('thread', T), 'floor', call('HINCRBY', K('thread', T), 'version', 1))
  return #turns
end

-- Enters a thread: a reset of its channel or space since the last time takes effect here. Returns
-- its numbers, or nil where there is no such thread.
local function enter(T)
  local meta = hash(K('thread', T))
  if not meta.state then return nil end
  local space, channel = places(T)
  local resets = call('HMGET', K('resets'), space, channel)
  local era = (resets[1] or '0') .. '.' .. (resets[2] or '0')
  if meta.era == era then return meta end
  wipe(T, 'reset')
  call('HSET', K('thread', T), 'era', era)
  return hash(K('thread', T))
end

-- Whether the job is still the caller's: 'ok', 'cancelled' or 'fenced'.
local function verdict(T, J, gen)
  local meta = enter(T)
  if not meta or meta.gen ~= tostring(gen) or meta.running ~= J then return 'fenced' end
  if call('HGET', K('job', J), 'cancel') then return 'cancelled' end
  return 'ok'
end

-- The audit log: kept apart from what is remembered, and for a term of its own.
local function note(place, by, act, detail)
  local oldest = string.format('%d', now - LIFE.audit)
  call('XADD', K('audit'), 'MINID', '=', oldest, '*', 'by', by, 'act', act, 'place', place,
    'detail', detail)
  touch('audit')
end

-- Deliveries ------------------------------------------------------------------------------------

-- Whose messages a reply takes over: those of the last one that was to stand in the same place,
-- though it may have ended without becoming a reply.
local function predecessor(J, replaces)
  local before = call('HMGET', K('delivery', replaces), 'v', 'last')
  if before[1] then call('HSET', K('delivery', replaces), 'last', J) end
  return before[2] or replaces
end

-- `holder` has the delivery from the start; nobody else looks for it until its lease ends.
local function open_delivery(T, J, job)
  local _, _, platform = places(T)
  local after = job.replaces and predecessor(J, job.replaces) or ''
  call('HSET', K('delivery', J), 'v', 1, 'thread', T, 'turn', job.turn, 'author', job.author,
    'note', job.note, 'token', 1, 'holder', A.holder, 'after', after)
  keep(T, 'delivery', J)
  call('ZADD', K('deliveries', platform), now + A.delivery_ms, J)
  local space = places(T)
  local asked = space .. ':' .. job.author
  if call('ZADD', K('asked', asked), now + term(T), J) == 1 and now % 16 == 0 then
    call('ZREMRANGEBYSCORE', K('asked', asked), '-inf', now)
  end
  keep_longest(T, 'asked', asked)
end

-- Opens a job in a thread that exists; returns its position among those that are ready.
local function open_job(T, J, job, later)
  local _, _, platform = places(T)
  job.v, job.thread, job.state, job.attempts, job.starts = 1, T, 'waiting', 0, 0
  job.arrival, job.at = call('INCR', K('arrivals')), now
  if A.quota then
    job.day, job.messages = today(), 1
    use(T, job.day, job.author, 'messages', 1)
  end
  open_delivery(T, J, job)
  job.note = nil -- only the delivery may hold what can post
  local flat = {}
  for field, value in pairs(job) do
    flat[#flat + 1] = field
    flat[#flat + 1] = value
  end
  call('HSET', K('job', J), unpack(flat))
  touch('job', J)
  call('ZADD', K('jobs', T), job.arrival, J)
  touch('jobs', T)
  call('ZADD', K('deadlines'), job.deadline, J)
  count(T, job.author, 1)
  local state = call('HGET', K('thread', T), 'state')
  if state == 'idle' then place(T, later) end
  local at = position(job.lane, path_of(T, job), T)
  emit(J, platform, cjson.encode({ t = 'queued', position = math.max(at, 1) }))
  touch('events', J)
  return at
end

-- What a person is told instead of getting a reply: a job that ends where it begins.
local function refuse(T, J, job, code, detail, til)
  local _, _, platform = places(T)
  call('HSET', K('job', J), 'v', 1, 'thread', T, 'turn', job.turn, 'author', job.author,
    'state', 'failed')
  touch('job', J)
  open_delivery(T, J, job)
  emit(J, platform, failed(code, detail, til))
  touch('events', J)
end

-- Why a reply cannot be owed now, if so: a code, what to log or how many wait already, and when it
-- can be asked again.
local function obstacle(T, job)
  if A.refuse and A.refuse ~= '' then return A.refuse, '' end
  local space, channel = places(T)
  local core = call('ZRANGEBYSCORE', K('lane', job.lane), '(' .. now, '+inf', 'LIMIT', 0, 1)[1]
  if not core then return 'no_core', '' end
  if A.quota then
    local code, til = used_up(T, job.author)
    if code then return code, 'used up', til end
  end
  local open = call('HMGET', K('open'), 'all', 'channel ' .. channel,
    'person ' .. space .. ':' .. job.author)
  local limit = A.limits
  for i, most in ipairs({ limit.all, limit.channel, limit.person }) do
    local waiting = tonumber(open[i]) or 0
    if waiting >= most then return 'busy', tostring(waiting) end
  end
  local waiting = call('ZCARD', K('jobs', T))
  if waiting >= limit.thread then return 'busy', tostring(waiting) end
end
