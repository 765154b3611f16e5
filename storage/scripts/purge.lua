-- Deletes the threads of a channel or a space that was reset, some at a time. Returns how
-- many turns went, and 1 while there may be more.

local name = A.kind .. ' ' .. A.scope
local purge = decoded(call('HGET', K('purges'), name) or '')
if not purge.cursor then return { 0, 0 } end

if purge.cursor == '0' then
  forget_letters(function(letter)
    local space, channel = place_names(letter.thread or '-:-:-')
    return space == A.scope or channel == A.scope
  end)
end

local found = call('ZSCAN', K('threads'), purge.cursor, 'COUNT', A.most)
local gone = 0
for i = 1, #found[2], 2 do
  local T = found[2][i]
  local space, channel = place_names(T)
  if space == A.scope or channel == A.scope then
    local _, turns = load_thread(T)
    gone = gone + (turns or 0)
  end
end
if found[1] == '0' then
  call('HDEL', K('purges'), name)
  return { gone, 0 }
end
call('HSET', K('purges'), name, cjson.encode({ cursor = found[1], at = now }))
return { gone, 1 }
