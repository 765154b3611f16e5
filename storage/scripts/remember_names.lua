-- Keeps what a channel and the bot are called there.

call('HSET', K('names', A.scope), 'channel', A.channel, 'bot', A.bot)
touch('names', A.scope)
return 1
