-- Forgets what a person wrote in this bucket, a few threads at a time: their turns with the replies
-- these had, their jobs, and the records of both. Returns turns forgotten, and threads yet to do.

local who = A.space .. ':' .. A.author
call('HSET', K('marks'), 'person ' .. who, now)
if A.first then note(A.space, A.by, 'forget', A.author) end
for _, entry in ipairs(A.first and call('XRANGE', K('feedback'), '-', '+') or {}) do
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  if fields.by == A.author and places(fields.thread) == A.space then
    call('XDEL', K('feedback'), entry[1])
  end
end

local function forget_job(J)
  local job = job_of(J)
  if job.state == 'waiting' or job.state == 'running' then
    local first = call('ZRANGE', K('jobs', job.thread), 0, 0)[1] == J
    finish(job.thread, J, job, 'cancelled', cancelled('reset'))
    if first then place(job.thread) end
  else
    -- what is being delivered still needs its events, for as long as they live
    call('DEL', K('job', J))
    if call('HGET', K('delivery', J), 'closed') then call('DEL', K('events', J), K('delivery', J)) end
  end
end

-- Their turns, and the replies to them.
local function turns_of(T)
  local theirs, turns = {}, hash(K('turns', T))
  for id, record in pairs(turns) do
    local turn = cjson.decode(record)
    local prompt = turn.answers and turns[turn.answers]
    local author = prompt and cjson.decode(prompt).author or turn.role == 'user' and turn.author
    if author == A.author then theirs[#theirs + 1] = id end
  end
  return theirs
end

for _, J in ipairs(call('ZRANGE', K('asked', who), 0, -1)) do forget_job(J) end
call('DEL', K('asked', who))
for _, entry in ipairs(call('XRANGE', K('dead'), '-', '+')) do
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  local space = fields.thread and places(fields.thread)
  if fields.author == A.author and space == A.space then call('XDEL', K('dead'), entry[1]) end
end

local forgotten = 0
for _, T in ipairs(call('ZRANGE', K('person', who), 0, A.most - 1)) do
  local theirs = enter(T) and turns_of(T) or {}
  for _, id in ipairs(theirs) do drop(T, id) end
  forgotten = forgotten + #theirs
  call('ZREM', K('person', who), T)
end
return { forgotten, call('ZCARD', K('person', who)) }
