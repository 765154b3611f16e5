-- Threads and their jobs: the next job, and a thread's place in the fair order.

-- Keys that exist once in a bucket or platform are renewed by sweep.lua and take_deliveries.lua, which
-- every process runs repeatedly.

local DAY_MS = 86400000

-- Gives the records of a thread's turns a lifetime: their messages, and the deliveries of replies.
local function renew_records(T, ms)
  local _, channel = place_names(T)
  for _, id in ipairs(call('HKEYS', K('turns', T))) do
    call('PEXPIRE', K('message', channel, id), ms)
    for _, message in ipairs(cjson.decode(call('HGET', K('delivery', id), 'messages') or '[]')) do
      call('PEXPIRE', K('message', channel, message), ms)
    end
    call('PEXPIRE', K('delivery', id), ms)
  end
end

-- Renews a thread's keys and, once a day, the records of its turns: a thread that goes on may live for
-- longer than its first messages would.
local function touch_thread(T, ...)
  local renewed = tonumber(call('HGET', K('thread', T), 'renewed')) or 0
  if now - renewed > math.min(DAY_MS, retention_of(T) / 10) then
    call('HSET', K('thread', T), 'renewed', now)
    renew_records(T, retention_of(T))
  end
  renew_retention(T, 'thread', T)
  for _, name in ipairs({ ... }) do renew_retention(T, name, T) end
  call('ZADD', K('threads'), now, T)
end

-- A job's fields. Missing numbers of a poisoned record are filled in, so that no script fails over it.
local function job_of(J)
  local job = hash(K('job', J))
  for _, name in ipairs({ 'author', 'lane', 'turn' }) do job[name] = job[name] or '' end
  for _, name in ipairs({ 'arrival', 'attempts', 'starts', 'cost' }) do
    job[name] = tonumber(job[name]) or 0
  end
  if job.state and not job.thread then job.thread = call('HGET', K('delivery', J), 'thread') or nil end
  return job
end

local function oldest_job(T)
  while true do
    local J = call('ZRANGE', K('jobs', T), 0, 0)[1]
    if not J then return nil end
    local job = job_of(J)
    if job.state then return J, job end
    call('ZREM', K('jobs', T), J) -- its record has expired
  end
end

local function path_of(T, job)
  local space, channel = place_names(T)
  return { space, channel, job.author ~= '' and job.author or '-' }
end

local function unschedule(T, meta)
  if meta.state == 'ready' then
    remove_from_order(meta.lane, split(meta.path, '\n'), T)
  elseif meta.state == 'delayed' then
    call('ZREM', K('delayed'), T)
  elseif meta.state == 'leased' then
    call('ZREM', K('leases'), T)
  end
end

-- Whether a thread is in the order as recorded: the order may have expired while Redis was away.
local function is_scheduled(T, meta)
  if meta.state == 'ready' then
    local leaf = nodes(split(meta.path, '\n'))[4]
    return call('ZSCORE', K('ready', meta.lane, leaf), T)
  end
  return meta.state == 'leased' and call('ZSCORE', K('leases'), T)
    or meta.state == 'delayed' and call('ZSCORE', K('delayed'), T)
end

local function wake_cores(lane)
  local length = call('LPUSH', K('wake', lane), 1)
  if length == 1 then touch('wake', lane) end
  if length > 64 then call('LTRIM', K('wake', lane), 0, 63) end
end

-- Puts a thread into the order, or delays it until `later`, or neither, by its oldest job, and fences
-- the last holder: nobody runs it then, and `gen` rises at the next claim. A job whose files are being
-- read is delayed at most until its deadline. `meta`, `J` and `job` may be passed to save reading them.
local function schedule(T, later, meta, J, job)
  meta = meta or hash(K('thread', T))
  if not meta.state then -- it has expired: its waiting jobs end at their deadlines
    call('ZREM', K('leases'), T)
    call('ZREM', K('delayed'), T)
    return
  end
  unschedule(T, meta)
  if not J then J, job = oldest_job(T) end
  if J and job.unread then later = job.deadline end
  if not J then
    call('HSET', K('thread', T), 'state', 'idle', 'running', '', 'path', '')
  elseif later then
    call('ZADD', K('delayed'), later, T)
    call('HSET', K('thread', T), 'state', 'delayed', 'running', '')
    wake_cores(job.lane) -- an idle core learns when it is due
  else
    local path = path_of(T, job)
    add_to_order(job.lane, path, T, job.arrival)
    call('HSET', K('thread', T), 'state', 'ready', 'running', '', 'lane', job.lane,
      'path', table.concat(path, '\n'))
    wake_cores(job.lane)
  end
  return J, job
end

local function count_open(T, person, by)
  local space, channel = place_names(T)
  for _, field in ipairs({ 'all', 'channel ' .. channel, 'person ' .. space .. ':' .. person }) do
    if call('HINCRBY', K('open'), field, by) <= 0 then call('HDEL', K('open'), field) end
  end
end

-- Ends a job: appends its last event and removes it from everything open. The caller then places the
-- thread again.
local function finish_job(T, J, job, state, event)
  if state == 'failed' or state == 'dead' then refund(T, J, job) end
  call('ZREM', K('jobs', T), J)
  call('ZREM', K('deadlines'), J)
  call('HSET', K('job', J), 'state', state)
  count_open(T, job.author, -1)
  emit(T, J, event)
end

-- `til`: when it can be asked again, in milliseconds, if known.
local function failed_event(code, message, til)
  local event = { t = 'failed', code = code, message = message or '' }
  event['until'] = (til or 0) / 1000
  return cjson.encode(event)
end

local function cancelled_event(by)
  return cjson.encode({ t = 'cancelled', by = by })
end

local function give_up(T, J, job, code, message)
  call('XADD', K('dead'), 'MAXLEN', '~', 10000, '*', 'job', J, 'thread', T, 'turn', job.turn or '',
    'author', job.author or '', 'attempts', job.attempts or 0, 'code', code, 'message', message)
  finish_job(T, J, job, 'dead', failed_event(code, message))
end

-- Deletes the dead letters for whose fields `is_meant` is true.
local function forget_letters(is_meant)
  for _, entry in ipairs(call('XRANGE', K('dead'), '-', '+')) do
    if is_meant(fields_of(entry[2])) then call('XDEL', K('dead'), entry[1]) end
  end
end
