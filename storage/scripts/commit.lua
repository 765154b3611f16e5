-- Ends a reply atomically: question and reply become history, old turns are evicted, the end is
-- published, and the thread goes on to its next job.

local T, J = A.thread, A.job
local said, meta = check_fence(T, J, A.gen)
if said == 'fenced' or (said == 'cancelled' and not A.stopped) then return said end

local job = job_of(J)

-- A count is written only where nobody edited the turn since it was read.
local function write_counts()
  for id, count in pairs(A.counts) do
    local version = tonumber(call('ZSCORE', K('changes', T), id) or 0)
    if call('HEXISTS', K('turns', T), id) == 1 and version <= A.version then
      call('HSET', K('counts', T), id, count)
    end
  end
end

write_counts()
charge_tokens(T, J, A.tokens)
keep_reply(T, J, job, A.reply, A.reply_count)
for _, id in ipairs(A.evict) do drop_turn(T, id) end
if A.made ~= '' and call('EXISTS', K('delivery', J)) == 1 then
  call('HSET', K('delivery', J), 'made', A.made)
end
finish_job(T, J, job, 'done', A.done)
schedule(T, nil, meta)
touch_thread(T, 'turns', 'history', 'counts')
return 'ok'
