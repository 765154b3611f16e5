-- Queues a dead letter again, as a new job. Returns outcome, job, position, code, 0, until.

local letter = call('XRANGE', K('dead'), A.letter, A.letter)[1]
if not letter then return { 'ignored' } end
local fields = fields_of(letter[2])

local T = fields.thread
local meta = load_thread(T)
if not meta or call('HEXISTS', K('turns', T), fields.turn) == 0 then
  return refused('', 'prompt_gone')
end
local job = {
  turn = fields.turn, revision = A.letter, lane = A.lane, author = fields.author, seed = A.seed,
  deadline = now + A.deadline_ms, note = call('HGET', K('delivery', fields.job), 'note') or '{}',
  cost = 1, asker = decoded(call('HGET', K('turns', T), fields.turn)).author,
}
local code, detail, til = refusal_reason(T, job)
if code then return refused('', code, detail, til) end
call('XDEL', K('dead'), A.letter)
return { 'queued', A.job, open_job(T, A.job, job, meta) }
