-- Stores the names of a channel and of the bot in it.

call('HSET', K('names', A.scope), 'channel', A.channel, 'bot', A.bot)
touch('names', A.scope)
return 1
