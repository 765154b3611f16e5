-- Opens a job that answers the beginning of a message that was too long, in the place of the refusal.
-- Returns outcome, job, position, code, 0, until.

local T, refusal = A.thread, A.reply
local meta = load_thread(T)
if call('EXISTS', K('job', A.job)) == 1 then return { 'duplicate', A.job } end
for _, J in ipairs(meta and call('ZRANGE', K('jobs', T), 0, -1) or {}) do
  if call('HGET', K('job', J), 'after') == refusal then return { 'duplicate', J } end
end
local id = call('HGET', K('job', refusal), 'turn') or ''
local kept = meta and aside(T, id)
if not kept or kept.job ~= refusal then return refused('', 'prompt_gone') end

local before = hash(K('delivery', refusal))
local job = {
  turn = id, revision = A.revision, lane = A.lane, author = A.author,
  seed = A.seed, deadline = now + A.deadline_ms, note = A.note or before.note or '{}', cost = 1,
  after = refusal, asker = decoded(kept.record).author, begins = 1, alone = 1,
}
local code, detail, til = refusal_reason(T, job)
if code then return refused('', code, detail, til) end
take_back(T, id, kept.record)
return { 'queued', A.job, open_job(T, A.job, job, meta) }
