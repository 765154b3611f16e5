-- Shared by every script. KEYS[1] is the base of the bucket's keys; ARGV[1] a JSON object.

local call = redis.call
local B = KEYS[1]
local A = cjson.decode(ARGV[1])

-- The full name of a key: its pattern with the variable parts filled in.
local function K(name, first, second)
  if not first then return B .. HEAD[name] end
  if second then first = first .. ':' .. second end
  return B .. HEAD[name] .. first .. TAIL[name]
end

local function touch(name, ...)
  call('PEXPIRE', K(name, ...), LIFE[name])
end

-- The retention time of a thread: that of its place, or the default.
local retentions = {}
local function retention_of(T)
  retentions[T] = retentions[T] or tonumber(call('HGET', K('thread', T), 'retention')) or LIFE.thread
  return retentions[T]
end

local function renew_retention(T, name, ...)
  call('PEXPIRE', K(name, ...), retention_of(T))
end

-- Retention differs between a person's threads: a list of theirs lives as long as the longest.
local function extend_retention(T, name, who)
  local key = K(name, who)
  if call('PTTL', key) < retention_of(T) then call('PEXPIRE', key, retention_of(T)) end
end

-- Redis's clock is the only one: milliseconds since the epoch.
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

-- From field, value, field, value... to a table, and back.
local function fields_of(list)
  local fields = {}
  for i = 1, #list, 2 do fields[list[i]] = list[i + 1] end
  return fields
end

local function list_of(fields)
  local list = {}
  for field, value in pairs(fields) do
    list[#list + 1] = field
    list[#list + 1] = tostring(value)
  end
  return list
end

local function hash(key)
  return fields_of(call('HGETALL', key))
end

-- A stored record as a table; an empty table if it cannot be read, so that no script fails over it.
local function decoded(record)
  local readable, value = pcall(cjson.decode, record)
  return readable and type(value) == 'table' and value or {}
end

local function split(text, separator)
  local parts = {}
  for part in string.gmatch(text, '[^' .. separator .. ']+') do parts[#parts + 1] = part end
  return parts
end

-- platform:space:channel:thread -> the names used for fair shares, limits and resets
local known_names = {}
local function place_names(T)
  local names = known_names[T]
  if not names then
    local platform, space, channel = string.match(T, '^([^:]+):([^:]+):([^:]+)')
    space = platform .. ':' .. space
    names = { space, space .. ':' .. channel, platform }
    known_names[T] = names
  end
  return names[1], names[2], names[3]
end

-- Whether a thread belongs to a one-off job, not to a conversation.
local function is_one_off(T)
  return string.find(T, ':~errand-', 1, true)
end

-- Appends to the audit log, which has its own lifetime.
local function audit(place, by, act, detail)
  local oldest = string.format('%d', now - LIFE.audit)
  call('XADD', K('audit'), 'MINID', '=', oldest, '*', 'by', by, 'act', act, 'place', place,
    'detail', detail)
  touch('audit')
end
