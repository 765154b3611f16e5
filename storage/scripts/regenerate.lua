-- Opens a job that regenerates a reply in its place, or continues it. Returns outcome, job,
-- position, code, 0, until.

local T, reply = A.thread, A.reply
local meta = load_thread(T)
local score = meta and call('ZSCORE', K('history', T), reply)
if call('EXISTS', K('job', A.job)) == 1 then return { 'duplicate', A.job } end
for _, J in ipairs(meta and call('ZRANGE', K('jobs', T), 0, -1) or {}) do
  if J == reply or call('HGET', K('job', J), 'replaces') == reply then
    return { 'duplicate', J }
  end
end
local prompt = score and call('ZRANGEBYSCORE', K('history', T), score - 0.5, '(' .. score)[1]
if not prompt then return refused('', 'prompt_gone') end

local before = hash(K('delivery', reply))
local job = {
  turn = prompt, revision = A.revision, lane = A.lane, author = A.author,
  seed = A.seed, deadline = now + A.deadline_ms, note = A.note or before.note or '{}', cost = 1,
  replaces = reply, asker = decoded(call('HGET', K('turns', T), prompt) or '').author,
}
if A.resumes then job.resumes = 1 end
local code, detail, til = refusal_reason(T, job)
if code then return refused('', code, detail, til) end
close_duel(T, reply, 'over')
return { 'queued', A.job, open_job(T, A.job, job, meta) }
