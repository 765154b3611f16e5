-- Appends an event to a reply, if the caller still holds its job; an empty one tells only its cost.

local said = check_fence(A.thread, A.job, A.gen)
if said ~= 'fenced' and A.spent > 0 then charge_tokens(A.thread, A.job, A.spent) end
if said == 'ok' and A.event ~= '' then emit(A.thread, A.job, A.event) end
return said
