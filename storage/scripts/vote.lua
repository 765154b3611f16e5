-- Counts a person's vote in a duel; a later one replaces it. Returns 1, or 0 if the duel is over.

local T, J = A.thread, A.job
local duel = load_thread(T) and hash(K('duel', J)) or {}
if duel.state ~= 'open' then return 0 end

local numbers = { a = string.sub(duel.order, 1, 1), b = string.sub(duel.order, 2) }
call('HSET', K('duel', J), 'vote ' .. A.by, A.verdict)
list_people(T, { A.by })
if A.collect then vote_on_sample(T, J, A.by, numbers[A.verdict] or A.verdict) end
if A.by == duel.asker and not duel.fixed then
  choose_answer(T, J, duel, numbers[A.verdict] or duel.drawn)
end
duel = hash(K('duel', J))
local votes = 0
for field in pairs(duel) do
  if is_vote(field) then votes = votes + 1 end
end
if votes >= tonumber(duel.wanted) then reveal(T, J, duel) end
return 1
