-- Whole threads: stopped replies, resets, and fencing.

-- Ends a stopped reply without a core: the streamed text becomes the reply.
local function finish_stopped(T, J, job)
  if job.first then return end_with_one_answer(T, J, job) end
  local text, record = shown_text(J), ''
  if text ~= '' then
    record = cjson.encode({ v = '1', role = 'assistant', author = job.lane, name = '', text = text,
      at = string.format('%.3f', now / 1000), answers = job.turn, finish = 'cancelled' })
  end
  keep_reply(T, J, job, record)
  touch_thread(T, 'turns', 'history', 'counts')
  local usage = { prompt_tokens = 0, reply_tokens = 0, cached_tokens = 0, dropped_turns = 0 }
  finish_job(T, J, job, 'done', cjson.encode({
    t = 'done', text = text, finish_reason = 'cancelled', usage = usage,
  }))
end

-- Deletes the text of a reply's events: at once, or after its delivery, which needs it.
local function forget_events(J)
  local delivery = call('HMGET', K('delivery', J), 'v', 'closed')
  if delivery[1] and not delivery[2] then
    call('HSET', K('delivery', J), 'wiped', 1)
  else
    call('DEL', K('events', J))
  end
end

-- Marks the append-only file for a rewrite by the sweep, because it still contains deleted text.
local function rewrite_later()
  call('SET', K('rewrite'), now, 'NX', 'PX', LIFE.rewrite)
end

-- Forgets a thread: its turns, its replies in progress, its waiting jobs. Returns the number of turns.
local function forget_thread(T, by)
  local turns = call('HLEN', K('turns', T))
  for _, J in ipairs(call('ZRANGE', K('jobs', T), 0, -1)) do
    local job = job_of(J)
    if job.state then finish_job(T, J, job, 'cancelled', cancelled_event(by)) end
  end
  for _, J in ipairs(call('ZRANGE', K('replies', T), 0, -1)) do forget_events(J) end
  for _, id in ipairs(call('SMEMBERS', K('edits', T))) do -- for a late copy of the message
    call('PEXPIRE', K('edited', T .. ' ' .. id), 60000)
  end
  drop_all_kept(T)
  call('DEL', K('jobs', T), K('turns', T), K('history', T), K('mailbox', T), K('counts', T),
    K('aside', T), K('changes', T), K('replies', T), K('edits', T))
  rewrite_later()
  schedule(T)
  call('HINCRBY', K('thread', T), 'epoch', 1)
  call('HDEL', K('thread', T), 'outgrown')
  call('HSET', K('thread', T), 'floor', call('HINCRBY', K('thread', T), 'version', 1))
  return turns
end

-- A thread's era: it changes with each reset of its channel or space.
local function era_of(T)
  local space, channel = place_names(T)
  local resets = call('HMGET', K('resets'), space, channel)
  return (resets[1] or '0') .. '.' .. (resets[2] or '0')
end

-- A new thread's numbers: above all those of a thread of this name that has expired, so that whoever
-- knew that one reads all of this one.
local function begin_thread(T)
  local meta = { state = 'idle', running = '', gen = now, epoch = 0, version = now, floor = now,
    era = era_of(T), renewed = now }
  call('HSET', K('thread', T), unpack(list_of(meta)))
  return meta
end

-- Keeps the lists by which edits and deletions find a branch as long as the branch itself.
local function renew_branches(T, ancestors)
  for _, ancestor in ipairs(split(ancestors or '', '\n')) do
    if call('PTTL', K('branches', ancestor)) < retention_of(T) then
      call('PEXPIRE', K('branches', ancestor), retention_of(T))
    end
  end
end

-- Reads a thread, after applying any reset of its channel or space since the last time. Returns its
-- numbers, or nil if there is no such thread; and the number of turns forgotten.
local function load_thread(T)
  local meta = hash(K('thread', T))
  if not meta.state then return nil end
  retentions[T] = tonumber(meta.retention) or LIFE.thread
  local era = era_of(T)
  if meta.era == era then return meta, 0 end
  local gone = forget_thread(T, 'reset')
  call('HSET', K('thread', T), 'era', era)
  return hash(K('thread', T)), gone
end

-- Whether the caller still holds the job: 'ok', 'cancelled' or 'fenced'; and the thread's numbers.
local function check_fence(T, J, gen)
  local meta = load_thread(T)
  if not meta or meta.gen ~= tostring(gen) or meta.running ~= J then return 'fenced' end
  return call('HGET', K('job', J), 'cancel') and 'cancelled' or 'ok', meta
end
