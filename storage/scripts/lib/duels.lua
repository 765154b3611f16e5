-- Duels: one job with two answers, from one lane after the other. Neither is shown or remembered before
-- both are complete.

local LOOK_MS = 5000

local function is_served(lane)
  return call('ZRANGEBYSCORE', K('lane', lane), '(' .. now, '+inf', 'LIMIT', 0, 1)[1] ~= nil
end

-- A committed reply as an answer.
local function committed_answer(traced)
  return cjson.encode({ record = A.reply, count = A.reply_count, done = A.done, made = A.made,
    model = A.model, trace = traced and A.trace.record or nil, evict = A.evict })
end

local function list_duel(T, J, job)
  local asker = job.asker or job.author
  list_kept(T, J, { question = job.turn, asker = asker, turns = {}, authors = { asker } })
end

-- Keeps the first answer, and lets the other lane answer.
local function begin_second_answer(T, J, job, traced)
  call('HSET', K('duel', J), 'v', 1, 'thread', T, 'asker', job.asker or job.author, 'question', job.turn,
    'state', 'writing', 'wanted', job.votes, 'for_ms', job.for_ms, '1', committed_answer(traced))
  renew_retention(T, 'duel', J)
  list_duel(T, J, job)
  call('ZADD', K('duels'), now + LOOK_MS, J)
  touch('duels')
  call('HSET', K('job', J), 'first', A.tokens, 'home', job.lane, 'lane', job.duel, 'state', 'waiting',
    'attempts', 0)
end

-- Puts an answer into the history as the reply.
local function remember_answer(T, J, job, duel, answer)
  keep_reply(T, J, job, answer.record, answer.count)
  for _, id in ipairs(decoded(duel['1']).evict or {}) do drop_turn(T, id) end
  if answer.made ~= '' then call('HSET', K('delivery', J), 'made', answer.made) end
  touch_thread(T, 'turns', 'history', 'counts')
end

-- Ends a duel with only one answer, which becomes the reply.
local function end_with_one_answer(T, J, job)
  local duel = hash(K('duel', J))
  local answer = decoded(duel['1'] or '')
  drop_kept(T, J)
  if not answer.record then
    finish_job(T, J, job, 'failed', failed_event('internal', 'the first answer is gone'))
    return
  end
  remember_answer(T, J, job, duel, answer)
  finish_job(T, J, job, 'done', answer.done)
end

-- Ends a job without a reply, or with its first answer if there is one.
local function end_unanswered(T, J, job, state, event)
  if job.first then return end_with_one_answer(T, J, job) end
  finish_job(T, J, job, state, event)
end

local function is_vote(field)
  return string.sub(field, 1, 5) == 'vote '
end

-- The last event of a duel's reply; `told`: with the models and the votes.
local function duel_event(duel, told)
  local answers = { decoded(duel['1']), decoded(duel['2']) }
  local picked = answers[tonumber(duel.picked)]
  local a, b = answers[1], answers[2]
  if duel.order == '21' then a, b = b, a end
  local done = decoded(picked.done)
  done.text, done.model = decoded(picked.record).text, ''
  done.duel = { a = decoded(a.record).text, b = decoded(b.record).text }
  if told then
    local votes = { a = 0, tie = 0, b = 0, bad = 0 }
    for field, verdict in pairs(duel) do
      if is_vote(field) then votes[verdict] = (votes[verdict] or 0) + 1 end
    end
    done.model = a.model == b.model and a.model or a.model .. ', ' .. b.model
    done.duel.models = { a.model, b.model }
    done.duel.votes = { votes.a, votes.tie, votes.b, votes.bad }
  end
  return cjson.encode(done)
end

-- Both answers are complete: voting begins. A random one is in the history until the asker chooses.
local function open_duel(T, J, job, traced)
  local drawn = math.floor(A.draw / 2) % 2 + 1
  call('HSET', K('duel', J), '2', committed_answer(traced), 'order', A.draw % 2 == 1 and '21' or '12',
    'drawn', drawn, 'picked', drawn, 'state', 'open')
  local duel = hash(K('duel', J))
  local answers = { decoded(duel['1']), decoded(duel['2']) }
  remember_answer(T, J, job, duel, answers[drawn])
  if answers[1].trace and answers[2].trace then
    keep_trace(T, J, job, { answers[1].trace, answers[2].trace })
  end
  call('HSET', K('thread', T), 'duel', J)
  call('ZADD', K('duels'), now + duel.for_ms, J)
  touch('duels')
  finish_job(T, J, job, 'done', duel_event(duel))
end

-- From the thread's next turn on, votes do not change the history.
local function fix_duel(T, J)
  if call('EXISTS', K('duel', J)) == 1 then call('HSET', K('duel', J), 'fixed', 1) end
  call('HSET', K('thread', T), 'duel', '')
end

local function close_duel(T, J, state)
  if call('EXISTS', K('duel', J)) == 1 then call('HSET', K('duel', J), 'state', state, 'fixed', 1) end
  call('ZREM', K('duels'), J)
end

-- Has the messages of a duel written once more, with the models and the votes.
local function reveal(T, J, duel)
  local delivery = call('HMGET', K('delivery', J), 'v', 'closed')
  if delivery[1] and not delivery[2] then -- it is still being written
    call('ZADD', K('duels'), now + 1000, J)
    return
  end
  close_duel(T, J, 'revealed')
  if not delivery[1] then return end
  local _, _, platform = place_names(T)
  call('DEL', K('events', J))
  emit_first(J, duel_event(duel, true))
  call('HDEL', K('delivery', J), 'closed')
  call('HINCRBY', K('delivery', J), 'token', 1)
  call('ZADD', K('deliveries', platform), now, J)
  touch('deliveries', platform)
end

-- Puts the asker's choice into the history.
local function choose_answer(T, J, duel, number)
  local answer = decoded(duel[number])
  if duel.picked == number or not call('ZSCORE', K('history', T), J) then return end
  call('HSET', K('duel', J), 'picked', number)
  call('HSET', K('turns', T), J, answer.record)
  call('HSET', K('counts', T), J, answer.count)
  call('HSET', K('delivery', J), 'made', answer.made)
  record_changes(T, J)
  touch_thread(T, 'turns', 'counts')
end

-- A question is asked again during its duel: both answers start over.
local function restart_duel(T, J, job)
  if not job.first then return end
  call('HSET', K('job', J), 'lane', job.home)
  call('HDEL', K('job', J), 'first', 'home')
  drop_kept(T, J)
end
