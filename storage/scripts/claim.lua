-- Gives a core the next thread of its lane, with a lease. Returns the job's fields, gen and epoch,
-- or nothing.

local function cost(T)
  local _, job = head(T)
  return job and job.cost or 1
end

while true do
  local T = descend(A.lane, '', 0, cost)
  if not T then return nil end
  local meta = hash(K('thread', T))
  if meta.path then resize(A.lane, nodes(split(meta.path, '\n')), -1) end
  call('HSET', K('thread', T), 'state', 'taken')
  meta = enter(T)
  local J, job = head(T)
  if meta and J then
    local gen = call('HINCRBY', K('thread', T), 'gen', 1)
    call('ZADD', K('leases'), now + A.lease_ms, T)
    touch('leases')
    call('HSET', K('thread', T), 'state', 'leased', 'running', J)
    call('HINCRBY', K('job', J), 'attempts', 1)
    local start = call('HINCRBY', K('job', J), 'starts', 1)
    call('HSET', K('job', J), 'state', 'running')
    local _, _, platform = places(T)
    emit(J, platform, cjson.encode({ t = 'started', attempt = start }))
    return { J, call('HGETALL', K('job', J)), gen, meta.epoch }
  elseif meta then
    call('HSET', K('thread', T), 'state', 'idle')
  end
end
