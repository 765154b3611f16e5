-- Records beside the history: traces and samples for training, and duels. A thread's list of them names
-- the people in each: job -> question, asker, turns, authors, at.

local MOST_KEPT = 200

local function contains(list, value)
  for _, one in ipairs(list or {}) do
    if one == value then return true end
  end
  return false
end

local function opted_out(T, person)
  local space = place_names(T)
  return call('HEXISTS', K('optouts'), space .. ' ' .. person) == 1
end

local function drop_samples(J)
  call('DEL', K('trace', J), K('sample', J))
end

local function drop_kept(T, J)
  drop_samples(J)
  call('DEL', K('duel', J))
  call('ZREM', K('duels'), J)
  call('HDEL', K('kept', T), J)
end

local function drop_all_kept(T)
  for _, J in ipairs(call('HKEYS', K('kept', T))) do drop_kept(T, J) end
end

-- Drops the records made from a message that was changed or deleted.
local function drop_kept_of_turn(T, id)
  for J, entry in pairs(hash(K('kept', T))) do
    local holds = decoded(entry)
    if J == id or holds.question == id then
      drop_kept(T, J)
    elseif contains(holds.turns, id) then
      drop_samples(J)
    end
  end
end

-- Drops a person's words and votes: those for training, or with `all` those in duels, too.
local function drop_kept_of_person(T, person, all)
  for J, entry in pairs(hash(K('kept', T))) do
    local holds = decoded(entry)
    if contains(holds.authors, person) then drop_samples(J) end
    call('HDEL', K('sample', J), 'vote ' .. person)
    if all then call('HDEL', K('duel', J), 'vote ' .. person) end
    if all and holds.asker == person then drop_kept(T, J) end
  end
end

-- Removes what has expired from a full list, or else the oldest.
local function make_room_in_kept(T)
  local oldest, since = nil, now
  for J, entry in pairs(hash(K('kept', T))) do
    local at = tonumber(decoded(entry).at) or 0
    if call('EXISTS', K('trace', J), K('sample', J), K('duel', J)) == 0 then
      call('HDEL', K('kept', T), J)
    elseif at <= since then
      oldest, since = J, at
    end
  end
  if oldest and call('HLEN', K('kept', T)) >= MOST_KEPT then drop_kept(T, oldest) end
end

local function list_kept(T, J, entry)
  if call('HLEN', K('kept', T)) >= MOST_KEPT then make_room_in_kept(T) end
  entry.at = now
  call('HSET', K('kept', T), J, cjson.encode(entry))
  renew_retention(T, 'kept', T)
end

-- Lists a thread under the people whose words or votes it contains, for forget.lua.
local function list_people(T, people)
  local space = place_names(T)
  for _, person in ipairs(people) do
    call('ZADD', K('person', space .. ':' .. person), now, T)
    touch('person', space .. ':' .. person)
  end
end

-- Whether the window of A.trace may be kept: nobody in it has opted out, and no turn was changed since
-- it was read. A forgotten person has no turns there.
local function may_trace(T, meta)
  if A.version < (tonumber(meta.floor) or 0) then return false end
  for _, id in ipairs(A.trace.turns) do
    local version = tonumber(call('ZSCORE', K('changes', T), id) or 0)
    if version > A.version or call('HEXISTS', K('turns', T), id) == 0 then return false end
  end
  for _, person in ipairs(A.trace.authors) do
    if opted_out(T, person) then return false end
  end
  return true
end

local function keep_trace(T, J, job, records)
  call('DEL', K('sample', J))
  call('HSET', K('trace', J), 'v', 1)
  for number, record in ipairs(records) do call('HSET', K('trace', J), number, record) end
  touch('trace', J)
  list_kept(T, J, { question = job.turn, asker = job.asker or job.author, turns = A.trace.turns,
    authors = A.trace.authors })
  list_people(T, A.trace.authors)
end

-- Turns a trace into a sample, which lives as long as the reply in the history. Returns whether there
-- is one.
local function keep_sample(T, J)
  local at = tonumber(decoded(call('HGET', K('kept', T), J) or '').at)
  if not at then return false end
  if call('EXISTS', K('trace', J)) == 1 then
    call('RENAME', K('trace', J), K('sample', J))
    call('PEXPIRE', K('sample', J), math.max(at + retention_of(T) - now, 1))
  end
  return call('EXISTS', K('sample', J)) == 1
end

local function vote_on_sample(T, J, person, verdict)
  if opted_out(T, person) or not keep_sample(T, J) then return end
  call('HSET', K('sample', J), 'vote ' .. person, verdict)
  list_people(T, { person })
end
