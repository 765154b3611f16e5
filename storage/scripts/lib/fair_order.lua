-- The fair order.
--
-- A tree: lane -> space -> channel -> person -> threads in order of arrival. Each node keeps its
-- children by virtual time. A served child moves back by the cost of the reply. A new child enters at
-- the virtual time of the last one served: in front of all that were served since, behind all that
-- also wait for their first reply. So shares are equal at each level, whatever waits below.

local function nodes(path)
  local names, node = { '' }, ''
  for i, child in ipairs(path) do
    node = i == 1 and child or node .. '/' .. child
    names[i + 1] = node
  end
  return names
end

local function add_to_order(lane, path, T, seq)
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

-- Removes T from the order, if it is in it.
local function remove_from_order(lane, path, T)
  local names = nodes(path)
  if call('ZREM', K('ready', lane, names[#names]), T) == 1 then call('DECR', K('waiting', lane)) end
end

-- Takes the next thread out of the order. `spent` collects the path: node, child.
local function pop_next(lane, node, depth, spent)
  local key = K('ready', lane, node)
  if depth == 3 then return call('ZPOPMIN', key)[1] end
  while true do
    local child = call('ZRANGE', key, 0, 0)[1]
    if not child then return nil end
    local below = node == '' and child or node .. '/' .. child
    local T = pop_next(lane, below, depth + 1, spent)
    if T then
      spent[#spent + 1] = { node, child }
      return T
    end
    call('ZREM', key, child)
    call('HDEL', K('clock', lane), below)
  end
end

local function charge(lane, spent, cost)
  local clocks = {}
  for i, share in ipairs(spent) do
    local node, child = share[1], share[2]
    local score = call('ZINCRBY', K('ready', lane, node), cost, child)
    clocks[2 * i - 1], clocks[2 * i] = node, tonumber(score) - cost
  end
  call('HSET', K('clock', lane), unpack(clocks))
  touch('clock', lane)
end

-- The position of T: exact if one person waits alone, else an estimate from equal shares.
local function position(lane, path, T)
  local names = nodes(path)
  local rank = call('ZRANK', K('ready', lane, names[4]), T)
  if not rank then return 0 end
  local waiting = tonumber(call('GET', K('waiting', lane))) or 0
  if waiting <= 1 then return 1 end
  local before = rank + 1
  for level = 3, 1, -1 do before = before * call('ZCARD', K('ready', lane, names[level])) end
  return math.min(before, waiting)
end
