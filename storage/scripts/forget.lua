-- Forgets a person in this bucket, a few threads at a time: their turns with the replies to them, and
-- their jobs, with all records and counts. Returns the number of turns forgotten, and how much is left.

local who = A.space .. ':' .. A.author
add_mark('person ' .. who)
call('HSET', K('purges'), 'person ' .. who, cjson.encode({ at = now }))
if A.first then audit(A.space, A.by, 'forget', A.author) end
for _, entry in ipairs(A.first and call('XRANGE', K('feedback'), '-', '+') or {}) do
  local fields = fields_of(entry[2])
  if fields.by == A.author and place_names(fields.thread) == A.space then
    call('XDEL', K('feedback'), entry[1])
  end
end

-- Any person's one-off job may contain their words.
for _, J in ipairs(A.first and call('ZRANGE', K('deadlines'), 0, -1) or {}) do
  local T = call('HGET', K('job', J), 'thread')
  if T and is_one_off(T) and place_names(T) == A.space then forget_thread(T, 'reset') end
end

local function forget_job(J)
  local job = job_of(J)
  local open = job.thread and (job.state == 'waiting' or job.state == 'running')
  if open then
    local first = call('ZRANGE', K('jobs', job.thread), 0, 0)[1] == J
    finish_job(job.thread, J, job, 'cancelled', cancelled_event('reset'))
    if first then schedule(job.thread) end
  end
  local delivery = call('HMGET', K('delivery', J), 'v', 'closed')
  if delivery[1] and not delivery[2] then
    -- a reply that is being delivered needs its events until it ends
    call('HSET', K('delivery', J), 'forgotten', 1)
  else
    call('DEL', K('job', J), K('events', J), K('delivery', J))
  end
end

-- Their turns with the replies to them, and unreadable records.
local function turns_of(T)
  local theirs, turns = {}, {}
  for id, record in pairs(hash(K('turns', T))) do turns[id] = decoded(record) end
  for id, turn in pairs(turns) do
    local prompt = turn.answers and turns[turn.answers]
    local author = prompt and prompt.author or turn.role == 'user' and turn.author
    if author == A.author or not turn.role then theirs[#theirs + 1] = id end
  end
  return theirs, turns
end

for _, J in ipairs(call('ZRANGE', K('asked', who), 0, 10 * A.most - 1)) do
  forget_job(J)
  call('ZREM', K('asked', who), J)
end
if A.first then
  forget_letters(function(letter)
    return letter.author == A.author and place_names(letter.thread or '-:-:-') == A.space
  end)
end

for _, message in ipairs(call('ZRANGE', K('early', who), 0, -1)) do
  call('PEXPIRE', K('edited', message), 60000) -- for a late copy of the message
end
call('DEL', K('early', who))

local function forget_aside(T)
  local gone = 0
  for id, kept in pairs(hash(K('aside', T))) do
    local record = decoded(kept).record
    if decoded(record or '').author == A.author then gone = gone + call('HDEL', K('aside', T), id) end
  end
  return gone
end

local forgotten = 0
for _, T in ipairs(call('ZRANGE', K('person', who), 0, A.most - 1)) do
  local theirs, turns = {}, {}
  if load_thread(T) then theirs, turns = turns_of(T) end
  for _, id in ipairs(theirs) do
    drop_turn(T, id)
    call('DEL', K('edited', T .. ' ' .. id))
    if turns[id].role == 'assistant' then forget_job(id) end
  end
  drop_kept_of_person(T, A.author, true)
  forgotten = forgotten + #theirs + forget_aside(T)
  call('ZREM', K('person', who), T)
end
if forgotten > 0 then rewrite_later() end
local left = call('ZCARD', K('person', who)) + call('ZCARD', K('asked', who))
if A.first or left == 0 then forget_usage(A.space, A.author) end
if left == 0 then call('HDEL', K('purges'), 'person ' .. who) end
return { forgotten, left }
