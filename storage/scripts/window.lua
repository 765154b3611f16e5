-- A thread as the next prompt needs it: what changed in the history since the reader's version (or
-- all of it), and the mailbox up to the job's turn.
-- Returns version, whether it is all, history rows, mailbox rows; a row is id, score, record, count.

local T = A.thread
local meta = enter(T)
if not meta then return { 0, 1, {}, {} } end

local function rows(ids)
  local out = {}
  for i = 1, #ids, 100 do
    local some = { unpack(ids, i, math.min(i + 99, #ids)) }
    local records = call('HMGET', K('turns', T), unpack(some))
    local counts = call('HMGET', K('counts', T), unpack(some))
    for j, id in ipairs(some) do
      out[#out + 1] = { id, call('ZSCORE', K('history', T), id), records[j], counts[j] }
    end
  end
  return out
end

local all = A.since == 0 or A.since < tonumber(meta.floor)
local history
if all then
  history = rows(call('ZRANGE', K('history', T), 0, -1))
else
  history = rows(call('ZRANGEBYSCORE', K('changes', T), '(' .. A.since, '+inf'))
end
local upto = A.turn == '' and '+inf' or call('ZSCORE', K('mailbox', T), A.turn)
local mailbox = upto and rows(call('ZRANGEBYSCORE', K('mailbox', T), '-inf', upto)) or {}
return { tonumber(meta.version), all and 1 or 0, history, mailbox }
