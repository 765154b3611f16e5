-- Sets a rule of a space or a channel, or with an empty value removes it, and writes the audit log.

if A.value == '' then
  call('HDEL', K('rules', A.scope), A.name)
else
  call('HSET', K('rules', A.scope), A.name, A.value)
  touch('rules', A.scope)
end
audit(A.scope, A.by, 'config', A.name .. ' ' .. (A.value == '' and '-' or A.value))
return 1
