"""Every key in Redis: its name, its lifetime, and its content. Only this module names keys.

All keys of one bucket share a hash tag, so that one script may use them on a Cluster, too;
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
OPEN = 4 * DAY
"""For open jobs: they must still end after a long weekend without Redis."""


@dataclass(frozen=True, slots=True)
class Key:
    """One kind of key. `pattern` has a ``%s`` for each part that varies, with colons between."""

    name: str
    pattern: str
    kind: str
    seconds: int | None
    """The lifetime after the last write; None: the retention of its thread."""
    holds: str
    personal: bool = False
    """Whether it contains people's words or ids."""


TABLE = (
    Key("lane", "lane:%s", "zset", HOUR, "the cores of a lane, by the end of their announcement"),
    Key("ready", "ready:%s:%s", "zset", OPEN, "waiting threads, by channel, person", personal=True),
    Key("clock", "clock:%s", "hash", OPEN, "fairness: who was served up to when", personal=True),
    Key("waiting", "waiting:%s", "string", OPEN, "how many threads of a lane are ready"),
    Key("wake", "wake:%s", "list", HOUR, "one element for each core to wake"),
    Key("leases", "leases", "zset", OPEN, "threads being answered, by the end of their lease"),
    Key("delayed", "delayed", "zset", OPEN, "threads that wait until a time, by that time"),
    Key("deadlines", "deadlines", "zset", OPEN, "open jobs, by their deadline"),
    Key("arrivals", "arrivals", "string", 400 * DAY, "the number of jobs so far"),
    Key("open", "open", "hash", OPEN, "open replies: in all, by channel, by person", personal=True),
    Key("thread", "thread:%s", "hash", None, "a thread's numbers: gen, epoch, sequence, state"),
    Key("turns", "thread:%s:turns", "hash", None, "turns by id, as JSON", personal=True),
    Key("history", "thread:%s:history", "zset", None, "ids of the remembered turns, in order"),
    Key("mailbox", "thread:%s:mailbox", "zset", None, "ids of the unread turns, in order"),
    Key("aside", "thread:%s:aside", "hash", DAY, "messages that were too long", personal=True),
    Key("counts", "thread:%s:counts", "hash", None, "token counts by turn, with the tokenizer"),
    Key("changes", "thread:%s:changes", "zset", None, "ids of changed turns, by version"),
    Key("choice", "thread:%s:choice", "hash", None, "a thread's chosen model and persona"),
    Key("replies", "thread:%s:replies", "zset", DAY, "a thread's newest replies, by their start"),
    Key("edits", "thread:%s:edits", "set", 600, "ids of messages whose edit came first"),
    Key("jobs", "thread:%s:jobs", "zset", OPEN, "a thread's open jobs, in order"),
    Key("job", "job:%s", "hash", OPEN, "a reply to write, and its end", personal=True),
    Key("events", "events:%s", "stream", DAY, "the events of one reply", personal=True),
    Key("delivery", "delivery:%s", "hash", None, "a reply's messages and asker", personal=True),
    Key("deliveries", "deliveries:%s", "zset", OPEN, "a platform's open deliveries, by lease"),
    Key("news", "news:%s", "stream", 60, "a platform's events of the last seconds", personal=True),
    Key("seen", "seen:%s", "string", 2 * DAY, "an event or a message that was stored"),
    Key("told", "told:%s", "string", 60, "a refusal that a person was told", personal=True),
    Key("edited", "edited:%s", "string", 600, "an edit that overtook its message", personal=True),
    Key("early", "early:%s", "zset", 600, "a person's edits that came first", personal=True),
    Key("message", "message:%s:%s", "string", None, "the turn of a platform's message"),
    Key("quoted", "quoted:%s:%s", "set", None, "other threads that quote a message"),
    Key("branches", "thread:%s:branches", "set", None, "threads that began as copies of it"),
    Key("threads", "threads", "zset", 400 * DAY, "threads by their last activity"),
    Key("person", "person:%s", "zset", 400 * DAY, "a person's threads, by activity", personal=True),
    Key("asked", "asked:%s", "zset", None, "a person's jobs, by their end", personal=True),
    Key("resets", "resets", "hash", 400 * DAY, "the number of resets of a channel or a space"),
    Key("marks", "marks", "hash", 400 * DAY, "times of resets and forgets", personal=True),
    Key("purges", "purges", "hash", 400 * DAY, "deletions under way, by scope", personal=True),
    Key("rewrite", "rewrite", "string", 30 * DAY, "since when a file may have deleted text"),
    Key("probe", "probe", "string", PROBE, "a test that Redis takes writes"),
    Key("reports", "reports", "hash", HOUR, "the reports of processes"),
    Key("lease", "lease:%s", "string", HOUR, "the process that holds a named lease"),
    Key("used", "used:%s", "hash", 30 * DAY, "messages and tokens used in a day", personal=True),
    Key("spent", "spent:%s", "hash", 3 * DAY, "the same counts of forgotten people", personal=True),
    Key("reads", "reads:%s", "string", HOUR, "the tokens that a lane's model reads"),
    Key("roles", "roles:%s", "hash", 30 * DAY, "a person's roles, by space", personal=True),
    Key("rules", "rules:%s", "hash", 400 * DAY, "rules that admins set for a place", personal=True),
    Key("names", "names:%s", "hash", 30 * DAY, "the names of a channel and of the bot there"),
    Key("audit", "audit", "stream", 365 * DAY, "the audit log: who did what", personal=True),
    Key("trace", "trace:%s", "hash", 2 * DAY, "the record of a generated reply", personal=True),
    Key("sample", "sample:%s", "hash", None, "a rated reply: its record, votes", personal=True),
    Key("duel", "duel:%s", "hash", None, "two answers to a question, and votes", personal=True),
    Key("duels", "duels", "zset", OPEN, "open duels, by the time of their next check"),
    Key("kept", "thread:%s:kept", "hash", None, "people in the records of a thread", personal=True),
    Key("optouts", "optouts", "hash", 400 * DAY, "people who opted out of training", personal=True),
    Key("salt", "salt", "string", 400 * DAY, "the salt of the digests of people"),
    Key("feedback", "feedback", "stream", 400 * DAY, "ratings, with their reasons", personal=True),
    Key("dead", "dead", "stream", 30 * DAY, "failed jobs, with their reasons", personal=True),
    Key("outbox", "outbox:%s", "hash", 900, "questions not yet posted", personal=True),
    Key("vault", "vault:%s", "string", 400 * DAY, "a platform's tokens, by space", personal=True),
)  # fmt: skip


def bucket_of(thread: ThreadKey, buckets: int) -> int:
    """The bucket that a thread's keys lie in.

    If a platform has no space for direct messages (`dm`), each channel has its bucket.
    """
    space = f"{thread.platform}:{thread.space}"
    if thread.space == "dm":
        space += f":{thread.channel}"
    return zlib.crc32(space.encode()) % buckets


def base(bucket: int) -> str:
    """The prefix of every key of a bucket."""
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

    `retention` of threads without a rule for their place, and of the audit log, in seconds.
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
