-- Puts earlier turns in front of a new thread, and ends its wait for them. Known turns, turns before a
-- mark, and turns older than the retention time are left out.

local T = A.thread
local space, channel = place_names(T)
local meta = load_thread(T)
if not meta then return end

local first = call('ZRANGE', K('mailbox', T), 0, 0, 'WITHSCORES')
-- by the platform's clock, counted from the question, unless it was deleted meanwhile
local asked = decoded(first[1] and call('HGET', K('turns', T), first[1]) or '')
local oldest = (tonumber(asked.at) or now / 1000) * 1000 - retention_of(T)

local function forgotten(turn)
  return turn.at_ms <= oldest or is_behind_mark(T, turn.author, turn.at_ms)
end

local from = (tonumber(first[2]) or 1) - #A.turns
if call('ZCARD', K('history', T)) == 0 then
  for i, turn in ipairs(A.turns) do
    local unknown = call('EXISTS', K('seen', T .. ' ' .. turn.id)) == 0
    if unknown and not forgotten(turn) then
      call('SET', K('seen', T .. ' ' .. turn.id), 'seeded', 'PX', LIFE.seen)
      call('HSET', K('turns', T), turn.id, apply_early_edit(T, turn.id, turn.record))
      call('ZADD', K('mailbox', T), from + i - 1, turn.id)
      call('SET', K('message', channel, turn.id), T .. '\n' .. turn.id, 'PX', retention_of(T))
      call('ZADD', K('person', space .. ':' .. turn.author), now, T)
      touch('person', space .. ':' .. turn.author)
    end
  end
  touch_thread(T, 'turns', 'mailbox')
end
if meta.state == 'delayed' then schedule(T) end
