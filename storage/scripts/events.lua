-- The events of a reply behind the entry `after`. Returns entry, event, entry, event, ...

local flat = {}
for _, row in ipairs(call('XRANGE', K('events', A.job), A.after, '+')) do
  flat[#flat + 1] = row[1]
  flat[#flat + 1] = row[2][2]
end
return flat
