-- Renews the leases on all that a core holds in this bucket. Returns a verdict for each.

local verdicts = {}
for i, held in ipairs(A.held) do
  verdicts[i] = fence(held.thread, held.job, held.gen)
  if verdicts[i] ~= 'fenced' then call('ZADD', K('leases'), now + A.lease_ms, held.thread) end
end
return verdicts
