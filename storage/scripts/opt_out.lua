-- Stores a person's opt-out of training in a space, or removes it with `out` false, and drops their
-- samples in some of their threads. Returns the number of these threads.

local who = A.space .. ':' .. A.person
local field = A.space .. ' ' .. A.person
if not A.out then
  call('HDEL', K('optouts'), field)
  return 0
end
call('HSET', K('optouts'), field, now)
touch('optouts')
local threads = call('ZRANGE', K('person', who), A.from, A.from + A.most - 1)
for _, T in ipairs(threads) do drop_kept_of_person(T, A.person, false) end
if #threads > 0 then rewrite_later() end
return #threads
