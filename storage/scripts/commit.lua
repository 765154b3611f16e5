-- Ends a reply atomically: question and reply become history, old turns are evicted, the end is
-- published, and the thread continues with its next job.

local T, J = A.thread, A.job
local said, meta = check_fence(T, J, A.gen)
if said == 'fenced' or (said == 'cancelled' and not A.stopped) then return said end

local job = job_of(J)

-- A count is written only if the turn was not edited since it was read.
local function write_counts()
  for id, count in pairs(A.counts) do
    local version = tonumber(call('ZSCORE', K('changes', T), id) or 0)
    if call('HEXISTS', K('turns', T), id) == 1 and version <= A.version then
      call('HSET', K('counts', T), id, count)
    end
  end
end

-- Keeps only the beginning of a message that was too long.
local function write_cut(cut)
  local record = call('HGET', K('turns', T), cut.id)
  if not record or tonumber(call('ZSCORE', K('changes', T), cut.id) or 0) > A.version then return end
  local turn = decoded(record)
  turn.text, turn.below, turn.files = cut.text, cut.below, cut.files ~= '' and cut.files or nil
  call('HSET', K('turns', T), cut.id, cjson.encode(turn))
end

-- The end of the reply. It tells once how many old turns no longer fit.
local function done_event()
  if A.dropped == 0 or meta.outgrown then return A.done end
  call('HSET', K('thread', T), 'outgrown', 1)
  return string.sub(A.done, 1, -2) .. ',"dropped":' .. A.dropped .. '}'
end

-- The new reply becomes a sample, and so does the one that it replaces.
local function keep_regeneration()
  if opted_out(T, job.author) or not keep_sample(T, job.replaces) then return end
  if keep_sample(T, J) then call('HSET', K('sample', J), 'replaced', job.replaces) end
end

local function end_reply(traced)
  if traced then
    keep_trace(T, J, job, { A.trace.record })
    if job.replaces then keep_regeneration() end
  end
  keep_reply(T, J, job, A.reply, A.reply_count)
  for _, id in ipairs(A.evict) do drop_turn(T, id) end
  if A.made ~= '' and call('EXISTS', K('delivery', J)) == 1 then
    call('HSET', K('delivery', J), 'made', A.made)
  end
  finish_job(T, J, job, 'done', done_event())
end

local traced = A.trace and may_trace(T, meta) -- before the thread is changed
local whole = decoded(A.done).text ~= '' and A.reply ~= '' and not A.stopped
write_counts()
if type(A.cut) == 'table' then write_cut(A.cut) end
charge_tokens(T, J, A.tokens)
if not job.duel or (not job.first and not (whole and is_served(job.duel))) then
  end_reply(traced)
elseif not job.first then
  begin_second_answer(T, J, job, traced)
elseif whole and call('EXISTS', K('duel', J)) == 1 then
  open_duel(T, J, job, traced)
else
  end_with_one_answer(T, J, job)
end
if A.reach ~= '' then call('HSET', K('thread', T), 'reach', A.reach) end
schedule(T, nil, meta)
touch_thread(T, 'turns', 'history', 'counts')
renew_branches(T, meta.ancestors)
return 'ok'
