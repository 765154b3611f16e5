-- Stores a person's roles in a space, for their direct messages.

call('HSET', K('roles', A.person), A.space, A.roles)
touch('roles', A.person)
