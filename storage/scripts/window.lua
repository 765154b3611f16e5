-- Reads a thread for its next prompt.

local meta = enter(A.thread)
if not meta then return { 0, 1, {}, {} } end
return window(A.thread, meta, A.since, A.turn)
