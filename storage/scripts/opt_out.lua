-- Notes that nothing of a person's in a space may be kept for training, or with `out` false that it
-- may, and drops what is kept, in some of their threads. Returns how many threads those were.

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
