-- Renews a core's leases in this bucket. Returns 'ok', 'cancelled' or 'fenced' for each.

local results = {}
for i, held in ipairs(A.held) do
  results[i] = check_fence(held.thread, held.job, held.gen)
  if results[i] ~= 'fenced' then call('ZADD', K('leases'), now + A.lease_ms, held.thread) end
end
return results
