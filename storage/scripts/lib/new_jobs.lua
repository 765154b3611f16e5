-- Opens jobs and deliveries, or finds the reason for a refusal.

-- The token of a delivery that only its opener has held.
local OPENED = 1

-- The job whose messages a reply takes over: the last one for the same place, even if it ended
-- without a reply.
local function predecessor(J, replaces)
  local before = call('HMGET', K('delivery', replaces), 'v', 'last')
  if before[1] then call('HSET', K('delivery', replaces), 'last', J) end
  return before[2] or replaces
end

-- Lists a job under its person, so that forget.lua finds it.
local function list_job(T, J, person)
  local asked = place_names(T) .. ':' .. person
  if call('ZADD', K('asked', asked), now + retention_of(T), J) == 1 and now % 16 == 0 then
    call('ZREMRANGEBYSCORE', K('asked', asked), '-inf', now)
  end
  extend_retention(T, 'asked', asked)
end

-- Opens a delivery, held by `holder` from the start.
local function open_delivery(T, J, job)
  local _, _, platform = place_names(T)
  local before = job.replaces or job.after
  local after = before and predecessor(J, before) or ''
  call('HSET', K('delivery', J), 'v', 1, 'thread', T, 'turn', job.turn, 'author', job.author,
    'note', job.note, 'token', OPENED, 'holder', A.holder, 'after', after)
  if job.asker then call('HSET', K('delivery', J), 'asker', job.asker) end
  renew_retention(T, 'delivery', J)
  call('ZADD', K('deliveries', platform), now + A.delivery_ms, J)
  call('ZADD', K('replies', T), now, J)
  if now % 16 == 0 then call('ZREMRANGEBYSCORE', K('replies', T), '-inf', now - LIFE.events) end
  touch('replies', T)
  list_job(T, J, job.author)
  if job.asker and job.asker ~= job.author then list_job(T, J, job.asker) end
end

-- Opens a job in a thread; `meta`: the thread's numbers. Returns its position in the queue.
local function open_job(T, J, job, meta, later)
  job.v, job.thread, job.state, job.attempts, job.starts = 1, T, 'waiting', 0, 0
  job.arrival, job.at = call('INCR', K('arrivals')), now
  if A.quota then
    job.day, job.messages = today(), A.uncounted and 0 or 1
    add_usage(T, job, 'messages', job.messages)
  end
  open_delivery(T, J, job)
  job.note = nil -- only the delivery may contain secrets that can post
  call('HSET', K('job', J), unpack(list_of(job)))
  touch('job', J)
  call('ZADD', K('jobs', T), job.arrival, J)
  touch('jobs', T)
  call('ZADD', K('deadlines'), job.deadline, J)
  count_open(T, job.author, 1)
  if meta.state == 'idle' then
    schedule(T, later, meta, J, job)
  elseif not is_scheduled(T, meta) then
    schedule(T, later, meta)
  end
  local at = position(job.lane, path_of(T, job), T)
  emit_first(J, cjson.encode({ t = 'queued', position = math.max(at, 1) }))
  return at
end

-- Opens a job that ends at once with a sentence to the person.
local function refuse(T, J, job, code, detail, til)
  call('HSET', K('job', J), 'v', 1, 'thread', T, 'turn', job.turn, 'author', job.author,
    'state', 'failed')
  touch('job', J)
  open_delivery(T, J, job)
  emit_first(J, failed_event(code, detail, til))
end

-- What a script returns for a refusal; `detail`: the number waiting, if it is one.
local function refused(J, code, detail, til)
  return { 'refused', J, tonumber(detail) or 0, code, 0, til or 0 }
end

-- The reason why no job can be opened now, if there is one: a code, a detail (for the log, or the
-- number waiting), and when to ask again.
local function refusal_reason(T, job)
  if A.refuse and A.refuse ~= '' then return A.refuse, '' end
  local space, channel = place_names(T)
  local core = call('ZRANGEBYSCORE', K('lane', job.lane), '(' .. now, '+inf', 'LIMIT', 0, 1)[1]
  if not core then return 'no_core', '' end
  if A.quota then
    local code, til = exhausted_quota(T, job.author)
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
