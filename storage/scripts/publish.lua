-- Adds to the events of a reply that is being written, while it is the caller's to write.

local said = fence(A.thread, A.job, A.gen)
if said == 'ok' then
  local _, _, platform = places(A.thread)
  emit(A.job, platform, A.event)
end
return said
