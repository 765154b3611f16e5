-- Marks: messages from before a mark's time are never read from the channel again.

local MOST_MARKS, FOLDED = 2048, 512

-- The wider place whose mark covers this place's: it forgets more, never less.
local function wider_place(name)
  local kind, scope = string.match(name, '^(%a+) (.*)$')
  if kind == 'space' then return nil end
  local space, channel = place_names(scope .. ':-')
  return kind == 'thread' and 'channel ' .. channel or 'space ' .. space
end

-- Keeps the number of marks bounded: the oldest marks of the narrowest kind merge into their wider
-- place's mark.
local function fold_marks()
  local marks = hash(K('marks'))
  for _, kind in ipairs({ 'thread', 'person', 'channel' }) do
    local names = {}
    for name in pairs(marks) do
      if string.find(name, kind .. ' ', 1, true) == 1 then names[#names + 1] = name end
    end
    if #names >= FOLDED or kind == 'channel' then
      table.sort(names, function(a, b) return tonumber(marks[a]) < tonumber(marks[b]) end)
      for i = 1, math.min(FOLDED, #names) do
        local into = wider_place(names[i])
        marks[into] = math.max(tonumber(marks[into] or 0), tonumber(marks[names[i]]))
        call('HSET', K('marks'), into, string.format('%d', marks[into]))
        call('HDEL', K('marks'), names[i])
      end
      return
    end
  end
end

-- Whether what this person said at that time in a thread was reset or forgotten since.
local function is_behind_mark(T, author, at_ms)
  local space, channel = place_names(T)
  local marks = call('HMGET', K('marks'), 'thread ' .. T, 'channel ' .. channel, 'space ' .. space,
    'person ' .. space .. ':' .. author)
  for i = 1, 4 do
    if at_ms <= (tonumber(marks[i]) or 0) then return true end
  end
  return false
end

-- `name` is a kind and a place: ``thread T``, ``channel C``, ``space S``, ``person S:U``.
local function add_mark(name)
  call('HSET', K('marks'), name, now)
  if call('HLEN', K('marks')) > MOST_MARKS then fold_marks() end
end
