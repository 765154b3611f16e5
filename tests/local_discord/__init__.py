"""A small local Discord: the REST API and the gateway over real sockets.

It has what an in-memory simulation has not: sessions that resume or do not, compressed frames,
rate-limit headers and 429s, answers that are late, and connections that break. It judges what it
is sent by Discord's rules and remembers every offence in `LocalDiscord.faults`.

Sources: discord.com/developers/docs (github discord/discord-api-docs) for opcodes, close codes,
fields and limits. Where it guesses, the docstring at the place says so.
"""
