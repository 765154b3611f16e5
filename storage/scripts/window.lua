-- Reads a thread for its next prompt.

local meta = load_thread(A.thread)
if not meta then return { 0, 1, {}, {} } end
return window(A.thread, meta, A.since, A.turn)
