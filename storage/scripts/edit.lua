-- Changes the stored turn of an edited message: its words, and its files if the edit names them. The
-- newest question is answered again, in the place of its reply, unless the thread has only a copy of
-- the message (`copied`). Returns outcome, job, position, code, 0, until, and whether new files must be
-- read.

local T, id = A.thread, A.turn
local meta = load_thread(T)
local record = meta and call('HGET', K('turns', T), id)

local function is_stale(revision)
  return revision and (tonumber(revision) or 0) >= (tonumber(A.revision) or 1)
end

local function names_of(files)
  local names = {}
  for i, file in ipairs(decoded(files or '[]')) do names[i] = file[1] end
  return table.concat(names, '\n')
end

-- Whether a message has other files than its turn, by their sources, or else by their names.
local function has_other_files(turn)
  if not A.files then return false end
  if turn.sources then return turn.sources ~= A.files.sources end
  return names_of(turn.files) ~= names_of(A.files.files)
end

-- Edits a turn. Returns whether nothing has changed, whether it has other files, and whether these
-- must be read.
local function reword(turn)
  local other = has_other_files(turn)
  local unread = other and A.files.note ~= ''
  local text = joined(A.text, other and A.files.named or files_of(turn))
  local same = turn.text == text and not unread
  turn.text, turn.revision = text, A.revision
  if other then
    turn.files, turn.sources, turn.read = A.files.files, A.files.sources, nil
    turn.below = tostring(#A.files.named)
  end
  return same, other, unread
end

-- A delivery's note with the files to read, for a takeover.
local function with_files(note, unread)
  if not unread then return note or '{}' end
  local all = decoded(note or '{}')
  for name, value in pairs(decoded(A.files.note)) do all[name] = value end
  return cjson.encode(all)
end

local function new_job(author, note, unread)
  return {
    turn = id, revision = A.revision, lane = A.lane, author = author, seed = A.seed,
    deadline = now + A.deadline_ms, note = with_files(note, unread), cost = 1,
    unread = unread and 1 or nil,
  }
end

-- Asks a message that was too long again, in the place of the refusal.
local function ask_again(kept)
  local turn = decoded(kept.record)
  if is_stale(turn.revision) then return { 'duplicate', A.job } end
  local _, _, unread = reword(turn)
  local job = new_job(turn.author, call('HGET', K('delivery', kept.job), 'note'), unread)
  job.after = kept.job
  local code, detail, til = refusal_reason(T, job)
  if code then return refused('', code, detail, til) end
  take_back(T, id, cjson.encode(turn))
  return { 'queued', A.job, open_job(T, A.job, job, meta) }
end

-- for a later copy of the message: with earlier messages, or after a reset. In a thread without the bot,
-- only a message that is addressed to it comes later.
local function keep_for_later()
  if A.copied or not (meta or A.expected) then return end
  local key = K('edited', T .. ' ' .. id)
  local before = call('GET', key)
  if before and is_stale(decoded(before).revision) then return end
  call('SET', key, cjson.encode({ text = A.text, revision = A.revision }), 'PX', LIFE.edited)
  call('SADD', K('edits', T), id)
  touch('edits', T)
  if record or A.author == '' then return end
  local who = place_names(T) .. ':' .. A.author -- for forget.lua, which finds others by their turns
  call('ZADD', K('early', who), now, T .. ' ' .. id)
  call('ZREMRANGEBYSCORE', K('early', who), '-inf', now - LIFE.edited)
  touch('early', who)
end

keep_for_later()
if not record then -- it is no longer in the history, but may be in samples
  if meta then drop_kept_of_turn(T, id) end
  local kept = meta and not A.copied and aside(T, id)
  return kept and ask_again(kept) or { 'ignored' }
end

local turn = decoded(record)
if not turn.text then return { 'ignored' } end
if is_stale(turn.revision) then return { 'duplicate', A.job } end
local same, other, unread = reword(turn)
call('HSET', K('turns', T), id, cjson.encode(turn))
if same then return { 'duplicate' } end
call('HDEL', K('counts', T), id)
record_changes(T, id)
local to_read = unread and 1 or 0

-- The answers of a duel are to the old text of the question: voting ends.
local function open_duel_of(id)
  for J, entry in pairs(hash(K('kept', T))) do
    local duel = decoded(entry).question == id and hash(K('duel', J)) or {}
    if duel.state == 'open' then return J, duel end
  end
end

local spoilt, duel = open_duel_of(id)
drop_kept_of_turn(T, id)

local function covers(job)
  return job.turn == id or string.find('\n' .. (job.covers or ''), '\n' .. id .. '\n', 1, true)
end

-- A job whose message has new files waits until they are read; without new files, it stops waiting.
local function await_files(J, job)
  if unread then
    call('HSET', K('job', J), 'unread', 1)
    local note = call('HGET', K('delivery', J), 'note')
    call('HSET', K('delivery', J), 'note', with_files(note, true))
  else
    call('HDEL', K('job', J), 'unread')
  end
  local first = call('ZRANGE', K('jobs', T), 0, 0)[1] == J
  if first and job.state == 'waiting' then schedule(T) end
end

-- The restarted reply of a regeneration is charged to the person who edits, no longer to who pressed.
local function charge_editor(J, job)
  count_open(T, job.author, -1)
  count_open(T, turn.author, 1)
  call('HSET', K('job', J), 'author', turn.author)
  job.author = turn.author
end

-- No quota is left to answer the new text, and the old text is no longer asked.
local function refuse_restart(J, job, code, til)
  call('HSET', K('job', J), 'messages', 0)
  job.messages, job.charged = 0, nil
  finish_job(T, J, job, 'failed', failed_event(code, 'used up', til))
  schedule(T)
  return refused('', code, nil, til)
end

for _, J in ipairs(call('ZRANGE', K('jobs', T), 0, -1)) do
  local job = job_of(J)
  if covers(job) then
    if other then await_files(J, job) end
    if meta.running == J or job.first then
      -- the same job starts over: its core is fenced, and `Started` empties what was shown
      local used, til = nil, nil
      if A.quota then used, til = exhausted_quota(T, turn.author) end
      if used then return refuse_restart(J, job, used, til) end
      if job.asker and turn.author ~= job.author then charge_editor(J, job) end
      charge_restart(T, J, job)
      call('HSET', K('job', J), 'state', 'waiting', 'attempts', 0)
      restart_duel(T, J, job)
      call('HDEL', K('job', J), 'cancel') -- the stop was meant for the old text
      schedule(T)
    end
    return { 'queued', J, position(job.lane, path_of(T, job), T), '', 0, 0, to_read }
  end
end

-- the reply comes right after its prompt
local score = call('ZSCORE', K('history', T), id)
local reply = score and call('ZRANGEBYSCORE', K('history', T), '(' .. score, score + 0.5)[1]
local newest = call('ZREVRANGE', K('history', T), 0, 0)[1]
local is_newest = reply and reply == newest and call('ZCARD', K('jobs', T)) == 0
if A.copied or not is_newest then
  if spoilt then reveal(T, spoilt, duel) end
  return { 'kept', '', 0, '', 0, 0, to_read }
end
local job = new_job(turn.author, call('HGET', K('delivery', reply), 'note'), unread)
job.replaces = reply
local code, detail, til = refusal_reason(T, job)
if code then
  if spoilt then reveal(T, spoilt, duel) end
  local answer = refused('', code, detail, til)
  answer[7] = to_read
  return answer
end
return { 'queued', A.job, open_job(T, A.job, job, meta) }
