-- Begins a thread as a copy of another one in its channel, up to one of its turns; the other stays as
-- it is. Without `into`, only says whether that can be done, once for each press of a button.
-- Returns what came of it, and whether older turns had left the other thread's memory before.

local T, new = A.thread, A.into
local space = place_names(T)
local meta = load_thread(T)
local last = meta and (call('ZSCORE', K('history', T), A.turn) or call('ZSCORE', K('mailbox', T), A.turn))
if not last then return { 'gone', 0 } end
local evicted = meta.outgrown and 1 or 0

local ancestors = split(meta.ancestors or '', '\n')
ancestors[#ancestors + 1] = T

local function is_full()
  for _, ancestor in ipairs(ancestors) do
    if call('SCARD', K('branches', ancestor)) >= A.most then return true end
  end
  return #ancestors > A.depth
end

-- What was forgotten, and what answers it: a purge may still be taking it away.
local hidden = {}
local function is_hidden(id, turn)
  local at_ms = (tonumber(turn.at) or 0) * 1000
  local asked = turn.role == 'user' and is_behind_mark(T, turn.author, at_ms)
  hidden[id] = not turn.role or asked or (turn.answers and hidden[turn.answers]) or nil
  return hidden[id]
end

local function copy_turns(name)
  local ids = call('ZRANGEBYSCORE', K(name, T), '-inf', last, 'WITHSCORES')
  for _, row in ipairs(turn_rows(T, ids, true)) do
    local id, score, record, count = unpack(row)
    local turn = decoded(record or '')
    if not is_hidden(id, turn) then
      call('ZADD', K(name, new), score, id)
      call('HSET', K('turns', new), id, record)
      if count then call('HSET', K('counts', new), id, count) end
      if turn.role == 'user' then
        call('ZADD', K('person', space .. ':' .. turn.author), now, new)
        extend_retention(new, 'person', space .. ':' .. turn.author)
      end
    end
  end
end

local function copy_choice()
  local choice = call('HGETALL', K('choice', T))
  if #choice == 0 then return end
  call('HSET', K('choice', new), unpack(choice))
  renew_retention(new, 'choice', new)
end

if new == '' then
  local first = call('SET', K('seen', 'press ' .. A.press), 1, 'NX', 'PX', LIFE.seen)
  if not first then return { 'duplicate', evicted } end
  return { is_full() and 'full' or 'ok', evicted }
end
if call('EXISTS', K('thread', new)) == 1 then return { 'duplicate', evicted } end
if is_full() then return { 'full', evicted } end
begin_thread(new)
for _, name in ipairs({ 'sequence', 'retention', 'reach', 'outgrown' }) do
  if meta[name] then call('HSET', K('thread', new), name, meta[name]) end
end
call('HSET', K('thread', new), 'ancestors', table.concat(ancestors, '\n'))
copy_turns('history')
copy_turns('mailbox')
copy_choice()
touch_thread(new, 'turns', 'history', 'mailbox', 'counts')
for _, ancestor in ipairs(ancestors) do call('SADD', K('branches', ancestor), new) end
renew_branches(new, table.concat(ancestors, '\n'))
return { 'ok', evicted }
