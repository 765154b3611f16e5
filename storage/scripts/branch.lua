-- Begins a thread as a copy of another one in its channel, up to one of its turns; the other stays as
-- it is. Without `into`, only says whether that can be done, once for each press of a button.
-- Returns what came of it, and whether older turns had left the other thread's memory before.

local T, new = A.thread, A.into
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

-- The words of forgotten people, and the replies to them: a purge may not have deleted them yet.
local space = place_names(T)
local hidden = {}
local function is_hidden(id, turn)
  local mark = turn.role == 'user' and call('HGET', K('marks'), 'person ' .. space .. ':' .. turn.author)
  local forgotten = mark and (tonumber(turn.at) or 0) * 1000 <= tonumber(mark)
  hidden[id] = not turn.role or forgotten or (turn.answers and hidden[turn.answers]) or nil
  return hidden[id]
end

-- Few commands for many pairs of values.
local function put(command, key, values)
  for i = 1, #values, 400 do
    call(command, key, unpack(values, i, math.min(i + 399, #values)))
  end
end

local authors, is_listed = {}, {}
local function copy_turns(name)
  local ids = call('ZRANGEBYSCORE', K(name, T), '-inf', last, 'WITHSCORES')
  local scored, records, counts = {}, {}, {}
  local function add(list, one, other)
    list[#list + 1], list[#list + 2] = one, other
  end
  for _, row in ipairs(turn_rows(T, ids, true)) do
    local id, score, record, count = unpack(row)
    local turn = decoded(record or '')
    if not is_hidden(id, turn) then
      add(scored, score, id)
      add(records, id, record)
      if count then add(counts, id, count) end
      if turn.role == 'user' and not is_listed[turn.author] then
        authors[#authors + 1], is_listed[turn.author] = turn.author, true
      end
    end
  end
  put('ZADD', K(name, new), scored)
  put('HSET', K('turns', new), records)
  put('HSET', K('counts', new), counts)
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
list_people(new, authors)
copy_choice()
touch_thread(new, 'turns', 'history', 'mailbox', 'counts')
for _, ancestor in ipairs(ancestors) do call('SADD', K('branches', ancestor), new) end
renew_branches(new, table.concat(ancestors, '\n'))
return { 'ok', evicted }
