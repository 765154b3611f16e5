-- Renews the leases on deliveries. Returns 1 for each that the caller still holds, else 0.

local still = {}
for i, held in ipairs(A.held) do
  still[i] = call('HGET', K('delivery', held.job), 'token') == tostring(held.token)
    and call('ZSCORE', K('deliveries', A.platform), held.job) and 1 or 0
  if still[i] == 1 then call('ZADD', K('deliveries', A.platform), now + A.delivery_ms, held.job) end
end
return still
