-- Removes a deleted message from mailbox and history: a question together with its reply, or a reply
-- alone. Jobs for it end. Returns the jobs that ended.

local T, id = A.thread, A.turn
local meta = load_thread(T)
-- for a late copy of the message
call('SET', K('seen', T .. ' ' .. id), 'addressed', 'PX', LIFE.seen)
if not meta then return {} end
drop_kept_of_turn(T, id)

local ended = {}
local function end_job(J, job)
  local first = call('ZRANGE', K('jobs', T), 0, 0)[1] == J
  finish_job(T, J, job, 'cancelled', cancelled_event('delete'))
  ended[#ended + 1] = J
  if first then schedule(T) end -- a later job does not move the first
end

-- A job that also covers other messages continues without this one.
local function without(J, job)
  local rest = {}
  for _, other in ipairs(split(job.covers or '', '\n')) do
    if other ~= id then rest[#rest + 1] = other end
  end
  local last = job.turn
  if job.turn == id then last = table.remove(rest) end
  if not last then return end_job(J, job) end
  local covers = #rest > 0 and table.concat(rest, '\n') .. '\n' or ''
  call('HSET', K('job', J), 'turn', last, 'covers', covers)
  if meta.running == J then
    charge_restart(T, J, job)
    call('HSET', K('job', J), 'state', 'waiting', 'attempts', 0)
    schedule(T)
  end
end

for _, J in ipairs(call('ZRANGE', K('jobs', T), 0, -1)) do
  local job = job_of(J)
  local covered = string.find('\n' .. (job.covers or ''), '\n' .. id .. '\n', 1, true)
  if job.turn == id or covered then
    without(J, job)
  elseif J == id or job.replaces == id then
    end_job(J, job)
  end
end

local score = tonumber(call('ZSCORE', K('history', T), id) or 0.5)
if score % 1 == 0 then -- a prompt; the score of a reply lies half-way to the next
  for _, reply in ipairs(call('ZRANGEBYSCORE', K('history', T), '(' .. score, score + 0.5)) do
    drop_turn(T, reply)
    forget_events(reply)
  end
end
drop_turn(T, id)
call('HDEL', K('aside', T), id)
call('DEL', K('edited', T .. ' ' .. id))
return ended
