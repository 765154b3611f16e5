-- Replaces the names of a message's files in its turn by their text, and lets the waiting job
-- continue. Returns 1, or 0 if there is no such turn, or it has other files now.

local T, id, J = A.thread, A.turn, A.job
local meta = load_thread(T)
local record = meta and call('HGET', K('turns', T), id)
if not record then return 0 end
local job = job_of(J)
local turn = decoded(record)
if not turn.text or turn.read then return 0 end
if turn.sources and turn.sources ~= A.sources then return 0 end

local named = files_of(turn)
local words = string.gsub(string.sub(turn.text, 1, #turn.text - #named), '\n\n$', '')
turn.text, turn.files, turn.read = joined(words, A.text), A.files, '1'
turn.below = tostring(#A.text)
call('HSET', K('turns', T), id, cjson.encode(turn))
call('HDEL', K('counts', T), id)
record_changes(T, id)
renew_retention(T, 'turns', T)
if not job.unread then return 1 end
call('HDEL', K('job', J), 'unread')
if meta.state == 'delayed' and call('ZRANGE', K('jobs', T), 0, 0)[1] == J then schedule(T) end
return 1
