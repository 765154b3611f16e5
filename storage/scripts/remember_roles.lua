-- Keeps which roles a person has in a space, for their direct messages.

call('HSET', K('roles', A.person), A.space, A.roles)
touch('roles', A.person)
return 1
