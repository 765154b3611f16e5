"""Writes PRIVACY.md: what is stored where, and for how long, from the table of keys.

`make docs` runs it; a test fails if the page is out of date.
"""

from __future__ import annotations

from pathlib import Path

from storage.keys import DAY, HOUR, TABLE, Key

PAGE = Path(__file__).with_name("PRIVACY.md")

HEAD = """\
# What is stored, where, and for how long

`make docs` writes this page from `storage/keys.py`.

People's messages and the model's answers are in your Redis, in keys that begin with
`henji:{BUCKET}:`. Each key has a lifetime, which starts again with every write. *Retention* is
`HENJI_RETENTION_DAYS` (30), or the rule `retention_days` of the channel or the space, counted from
a thread's last message.
"""

FOOT = """\
## Files that people send

The text of a text file is stored in its message's turn (`turns`), and is forgotten with it. The
file is never stored. Its address is in the reply's `delivery` until the reply ends. Only the names
of images and other files are stored, in the turn.

## A model's thoughts

The thoughts of a model are not stored, with two exceptions. If a thought reached its limit before
the answer began, it is stored in the reply's turn (`turns`) so that Continue works, until the reply
is regenerated, continued or forgotten. If a model's chat template puts earlier thoughts into
prompts, each thought is stored with its reply.

## Summaries

When a person asks for a summary, the messages are read from the platform, and only that person sees
the result. Each piece of text, and the points that the model makes of it, is stored in the keys of
a job. The job is deleted when the piece is done or stopped, or when its process has ended. A
forget, or a reset of the channel or the space, also ends it.

## Continuations

"Continue from here" begins a thread with a copy of another thread's turns, in the same channel.
Editing or deleting a message changes every copy of it. So does a forget of its author, and a reset
of the channel or the space. A reset of one thread leaves the threads that continue it.

## Beside Redis

- **The files of Redis.** A reset, a forget or a deletion removes text from Redis at once. Within an
  hour, a core lets Redis rewrite its append-only file (`BGREWRITEAOF`), if Redis allows it. The
  embedded server's files are in `HENJI_DATA_DIR/redis`.
- **Backups and exports.** A backup, a file of `henji admin export` or `henji admin preferences`, a
  folder of `henji compare` and an adapter of `henji align` keep the words in them. Delete these
  files yourself.
- **Memory of the processes.** A core caches the threads that it answered last, and their tokens in
  the model's cache, until others replace them or the core ends. It uses a cached thread only after
  asking Redis for changes. The cache is never written to a file.
- **Logs.** The logs contain ids of replies, threads and messages, and of people who reset,
  configured or rated something. They contain no words, unless `HENJI_LOG_CONTENT` is set. Your log
  system sets their lifetime.
- **Metrics and traces.** They name no person and no channel, and contain no text.
- **A remote engine** (`HENJI_ENGINE=openai`) receives each prompt: as token ids, or as messages
  with `HENJI_OPENAI_API=chat`. `/privacy`, the bot's help, Slack's home page and `henji doctor`
  name its host.
- **Slack and Discord** keep their messages, and those of the bot, by their rules.

## People's rights

- **Forget.** A person can have their messages in a space forgotten, with the replies to them: in
  Slack on the bot's home page, in Discord with `/privacy`; an operator runs `henji admin forget
  --user PERSON --in PLATFORM:SPACE`. It deletes their turns, jobs, events, dead letters, ratings
  and deliveries; a delivery in progress is deleted when it ends. It leaves a mark, so that the bot
  never reads these messages from the channel again.
- **Export.** A person can get their messages in a space, with the replies to them: `/privacy` in
  Discord, or `henji admin export`.
- **Opt out of training.** A person can forbid the use of their words and votes to train a model: in
  Slack on the bot's home page, in Discord with `/privacy`. Samples (`trace`, `sample`) exist only
  where the rule `collect` is on, and every reply there says so. A sample and its votes are deleted
  when a message, person, thread or place in it is forgotten, edited, deleted or reset, and at the
  latest when the reply's turn expires. An opt-out stays when the person is forgotten.
- **Duels** (`duel`) contain the two answers and the votes. A duel is deleted with its question, or
  with the person who asked. A vote is deleted with its person.
- **Edits and deletions** in the channel also change the stored turns.
- **A reset** of a thread, a channel or a space returns when the words are deleted. If its process
  dies before that, a core finishes the work within a minute. A reply that is being delivered keeps
  its events until it ends. A mark and an entry in the audit log stay.
- **A shorter retention** applies to existing threads at once. The delivery records (`delivery`,
  `message`) of replies that are no longer in their thread's history keep their lifetime.
- **The list of a person's threads** (`person`) is kept for longer than any words: a thread that
  others keep alive may contain old words, and a forget must find it.
- **Counts.** The messages and tokens of each person, channel and model are counted by day (`used`),
  for quotas, `/usage` and `henji admin usage`, and kept for 30 days. A forget deletes the person's
  counts. Those of the current day move to `spent`, which only quotas read, so that a forget does
  not renew a quota. They expire after three days.
- **After a forget**, these stay for their lifetimes: the marks; the lists of admins (`rules`);
  the person's roles (`roles`), so that a denied role stays denied in direct messages; and the audit
  log, which contains actions, never messages.
"""


THREADS = """\
A thread's name consists of the platform's ids of space, channel and thread. On Discord, the name of
a conversation with one person contains that person's id.
"""


def page() -> str:
    """The whole page, in Markdown."""
    personal = [entry for entry in TABLE if entry.personal]
    other = [entry for entry in TABLE if not entry.personal]
    return "\n".join(
        (
            HEAD,
            "## With people's words or ids in it\n",
            *_table(personal),
            "\n## With ids of threads and messages, or less\n",
            THREADS,
            *_table(other),
            "",
            FOOT,
        )
    )


def _table(entries: list[Key]) -> list[str]:
    rows = [f"| `{_name(e)}` | {e.kind} | {e.holds} | {lifetime(e)} |" for e in entries]
    return ["| key | kind | content | lifetime |", "|---|---|---|---|", *rows]


def _name(entry: Key) -> str:
    return entry.pattern.replace("%s", "*")


def lifetime(entry: Key) -> str:
    """In words."""
    if entry.name == "audit":
        return "`HENJI_AUDIT_DAYS` (365 days)"
    if entry.seconds is None:
        return "retention"
    for unit, name in ((DAY, "day"), (HOUR, "hour"), (60, "minute")):
        if entry.seconds % unit == 0:
            number = entry.seconds // unit
            return f"{number} {name}{'s' * (number > 1)}"
    return f"{entry.seconds} seconds"


if __name__ == "__main__":
    PAGE.write_text(page())
