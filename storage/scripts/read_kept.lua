-- The samples or the duels of a thread's replies. Samples with words of people who opted out are
-- dropped. Returns job, entry and fields of each.

local T = A.thread
local found = {}
if not load_thread(T) then return found end
for J, entry in pairs(hash(K('kept', T))) do
  for _, person in ipairs(A.key == 'sample' and decoded(entry).authors or {}) do
    if opted_out(T, person) or contains(A.denied, person) then drop_samples(J) end
  end
  local fields = call('HGETALL', K(A.key, J))
  if #fields > 0 then found[#found + 1] = { J, entry, fields } end
end
return found
