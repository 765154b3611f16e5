"""Every key in Redis: its name, its lifetime, and what it holds. Nothing else names a key.

All keys of one bucket share a hash tag, so that one script may decide over them on a Cluster too;
bucket = hash(platform and space) modulo the number of buckets. A Lua script gets this table as its
preamble (`preamble`), and builds names with ``K(name, ...)``, lifetimes with ``touch(name, ...)``.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from core.types import ThreadKey

HOUR = 3600
DAY = 24 * HOUR
PROBE = 60
OWED = 4 * DAY
"""For open jobs: they must still end after a long week-end without Redis."""


@dataclass(frozen=True, slots=True)
class Key:
    """One kind of key. `pattern` has a ``%s`` for each part that varies, with colons between."""

    name: str
    pattern: str
    kind: str
    seconds: int | None
    """Lifetime since the last write; None: the retention of its thread."""
    holds: str
    personal: bool = False
    """Whether people's words or ids are in it."""


TABLE = (
    Key("lane", "lane:%s", "zset", HOUR, "cores that serve a lane, by when that ends"),
    Key("ready", "ready:%s:%s", "zset", OWED, "who is next, by channel, person", personal=True),
    Key("clock", "clock:%s", "hash", OWED, "where the last one served stood", personal=True),
    Key("waiting", "waiting:%s", "string", OWED, "how many threads of a lane are ready"),
    Key("wake", "wake:%s", "list", HOUR, "one element for each core that should look for work"),
    Key("leases", "leases", "zset", OWED, "threads being answered, by the end of their lease"),
    Key("delayed", "delayed", "zset", OWED, "threads that wait for a time, by that time"),
    Key("deadlines", "deadlines", "zset", OWED, "open jobs, by the time they are given up"),
    Key("arrivals", "arrivals", "string", 400 * DAY, "how many jobs have come in"),
    Key("open", "open", "hash", OWED, "replies owed: in all, by channel, by person", personal=True),
    Key("thread", "thread:%s", "hash", None, "a thread's numbers: gen, epoch, sequence, state"),
    Key("turns", "thread:%s:turns", "hash", None, "turns by id, as JSON", personal=True),
    Key("history", "thread:%s:history", "zset", None, "ids of the turns remembered, in order"),
    Key("mailbox", "thread:%s:mailbox", "zset", None, "ids of the turns not yet read, in order"),
    Key("aside", "thread:%s:aside", "hash", DAY, "messages that were too long", personal=True),
    Key("counts", "thread:%s:counts", "hash", None, "token counts by turn, and whose"),
    Key("changes", "thread:%s:changes", "zset", None, "ids of turns that changed, by version"),
    Key("choice", "thread:%s:choice", "hash", None, "a thread's chosen model and persona"),
    Key("replies", "thread:%s:replies", "zset", DAY, "a thread's newest replies, by their begin"),
    Key("edits", "thread:%s:edits", "set", 600, "ids of messages that an edit overtook"),
    Key("jobs", "thread:%s:jobs", "zset", OWED, "a thread's open jobs, in order"),
    Key("job", "job:%s", "hash", OWED, "a reply that is owed, and how it ended", personal=True),
    Key("events", "events:%s", "stream", DAY, "the events of one reply", personal=True),
    Key("delivery", "delivery:%s", "hash", None, "a reply's messages, its asker", personal=True),
    Key("deliveries", "deliveries:%s", "zset", OWED, "a platform's open deliveries, by lease"),
    Key("news", "news:%s", "stream", 60, "a platform's events of the last seconds", personal=True),
    Key("seen", "seen:%s", "string", 2 * DAY, "an event or a message that was taken in"),
    Key("told", "told:%s", "string", 60, "a refusal that a person was told", personal=True),
    Key("edited", "edited:%s", "string", 600, "an edit that overtook its message", personal=True),
    Key("message", "message:%s:%s", "string", None, "which turn a platform's message belongs to"),
    Key("quoted", "quoted:%s:%s", "set", None, "further threads that have a message as a quote"),
    Key("threads", "threads", "zset", 400 * DAY, "threads by their last activity"),
    Key("person", "person:%s", "zset", None, "threads where they wrote or voted", personal=True),
    Key("asked", "asked:%s", "zset", None, "a person's jobs, by their end", personal=True),
    Key("resets", "resets", "hash", 400 * DAY, "how often a channel or a space was reset"),
    Key("marks", "marks", "hash", 400 * DAY, "when what was forgotten, and whose", personal=True),
    Key("purges", "purges", "hash", 400 * DAY, "what is being taken away, whose", personal=True),
    Key("rewrite", "rewrite", "string", 30 * DAY, "when words went that a file may still hold"),
    Key("probe", "probe", "string", PROBE, "that Redis takes writes"),
    Key("reports", "reports", "hash", HOUR, "what processes say of themselves"),
    Key("lease", "lease:%s", "string", HOUR, "which process is the only one of a kind"),
    Key("used", "used:%s", "hash", 3 * DAY, "messages and tokens used of a day", personal=True),
    Key("roles", "roles:%s", "hash", 30 * DAY, "a person's roles, by space", personal=True),
    Key("rules", "rules:%s", "hash", 400 * DAY, "what admins set for a place", personal=True),
    Key("names", "names:%s", "hash", 30 * DAY, "what a channel and the bot are called there"),
    Key("audit", "audit", "stream", 365 * DAY, "who did what to it all", personal=True),
    Key("trace", "trace:%s", "hash", 2 * DAY, "how a reply was made, until a vote", personal=True),
    Key("sample", "sample:%s", "hash", None, "the same, with what people voted", personal=True),
    Key("duel", "duel:%s", "hash", None, "two answers to a question, and votes", personal=True),
    Key("duels", "duels", "zset", OWED, "open duels, by the time they are looked at"),
    Key("kept", "thread:%s:kept", "hash", None, "whose words these three hold", personal=True),
    Key("optouts", "optouts", "hash", 400 * DAY, "who lets nothing be kept so", personal=True),
    Key("salt", "salt", "string", 400 * DAY, "what the digests of people are mixed with"),
    Key("feedback", "feedback", "stream", 400 * DAY, "opinions of replies, and why", personal=True),
    Key("dead", "dead", "stream", 30 * DAY, "jobs that were given up, and why", personal=True),
    Key("outbox", "outbox:%s", "hash", 900, "questions not yet posted", personal=True),
    Key("vault", "vault:%s", "string", 400 * DAY, "a platform's tokens, and whose", personal=True),
)  # fmt: skip


def bucket_of(thread: ThreadKey, buckets: int) -> int:
    """The bucket that a thread's keys lie in.

    Where a platform has no space for direct messages (`dm`), each channel is on its own.
    """
    space = f"{thread.platform}:{thread.space}"
    if thread.space == "dm":
        space += f":{thread.channel}"
    return zlib.crc32(space.encode()) % buckets


def base(bucket: int) -> str:
    """What every key of a bucket begins with."""
    return f"henji:{{{bucket}}}:"


def key(name: str, bucket: int, *parts: str) -> str:
    """The full name of a key, for the few commands that are not scripts."""
    pattern = next(entry.pattern for entry in TABLE if entry.name == name)
    return base(bucket) + pattern % parts


def seconds_of(name: str) -> int | None:
    """The lifetime of a key; None: the retention of its thread."""
    return next(entry.seconds for entry in TABLE if entry.name == name)


def preamble(retention: float, audit: float) -> str:
    """The table in Lua, as the head of every script.

    `retention` of threads where their place has none of its own, and of the audit log, in seconds.
    """
    seconds = {entry.name: entry.seconds or retention for entry in TABLE} | {"audit": audit}
    parts = {entry.name: entry.pattern.split("%s") for entry in TABLE}
    tables: Mapping[str, Mapping[str, object]] = {
        "HEAD": {name: f"'{words[0]}'" for name, words in parts.items()},
        "TAIL": {name: f"'{words[-1]}'" for name, words in parts.items() if len(words) > 1},
        "LIFE": {name: round(1000 * life) for name, life in seconds.items()},
    }
    return "".join(_lua_table(name, entries) for name, entries in tables.items())


def _lua_table(name: str, entries: Mapping[str, object]) -> str:
    lines = "".join(f"  {entry} = {value},\n" for entry, value in entries.items())
    return f"local {name} = {{\n{lines}}}\n"
