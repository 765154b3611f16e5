-- The end of a reply, all at once or not at all: what was read and what was answered become
-- history, old turns fall, the end is published, and the thread goes on to its next job.

local T, J = A.thread, A.job
local said = verdict(T, J, A.gen)
if said == 'fenced' or (said == 'cancelled' and not A.stopped) then return said end

local job = hash(K('job', J))

-- A count is written only where nobody edited the turn since it was read.
local function write_counts()
  for id, count in pairs(A.counts) do
    local version = tonumber(call('ZSCORE', K('changes', T), id) or 0)
    if call('HEXISTS', K('turns', T), id) == 1 and version <= A.version then
      call('HSET', K('counts', T), id, count)
    end
  end
end

local function read_mailbox()
  local upto = call('ZSCORE', K('mailbox', T), job.turn)
  -- read already, with a later message, before it was known to be addressed
  if not upto then return call('ZSCORE', K('history', T), job.turn) or 0 end
  for _, id in ipairs(call('ZRANGEBYSCORE', K('mailbox', T), '-inf', upto)) do
    call('ZADD', K('history', T), call('ZSCORE', K('mailbox', T), id), id)
    call('ZREM', K('mailbox', T), id)
    changed(T, id)
  end
  return upto
end

-- Just behind the turn that it answers, whatever came in meanwhile.
local function append_reply(upto)
  if A.reply == '' then return end -- nothing was shown
  call('HSET', K('turns', T), J, A.reply)
  call('HSET', K('counts', T), J, A.reply_count)
  call('ZADD', K('history', T), upto + 0.5, J)
  changed(T, J)
end

local function overwrite()
  local score = call('ZSCORE', K('history', T), job.replaces)
  if not score then return end
  drop(T, job.replaces)
  append_reply(score - 0.5)
end

write_counts()
if job.day then use(T, job.day, job.author, 'tokens', A.tokens) end
if job.replaces then overwrite() else append_reply(read_mailbox()) end
for _, id in ipairs(A.evict) do drop(T, id) end
finish(T, J, job, 'done', A.done)
place(T)
touch_thread(T, 'turns', 'history', 'counts')
return 'ok'
