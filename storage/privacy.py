"""The page that says what is stored where and for how long, written from the table of keys.

`make docs` writes it; a test holds it current.
"""

from __future__ import annotations

from pathlib import Path

from storage.keys import DAY, HOUR, TABLE, Key

PAGE = Path(__file__).with_name("PRIVACY.md")

HEAD = """\
# What is stored, where, and for how long

Written from `storage/keys.py` by `make docs`: a test fails where this page and that table differ.

Everything that people say, and what the model answered, is in your own Redis, in keys that begin
with `henji:{BUCKET}:`. Each key has a lifetime, which begins anew when it is written; *retention*
is `HENJI_RETENTION_DAYS` (30), or what is set for the channel or the space (`retention_days`), from
a thread's last message on.
"""

FOOT = """\
## Files that people send

The text of a text file is kept as a part of its message's turn (`turns`), and is forgotten with it.
The file itself is never kept. Its address is in the reply's `delivery` until that is over. Of
images and other files the name is kept, in the same place.

## A model's thoughts

The thought of a model that thinks before it answers is not kept. There are two exceptions. A
thought that ended before there was an answer is kept as a part of the reply's turn (`turns`) for as
long as Continue is offered under it: until the reply is written anew or gone on with, or is
forgotten. And where a model's own chat template has earlier thoughts in its prompts, each is kept
with its reply.

## Summaries

A summary for one person is read from the platform when it is asked for, and is shown to them alone.
Its pieces, and the points that the model makes of each, are in the keys of a job that is deleted
when the piece ends or is stopped, or its process is gone. A forget, and a reset of the channel or
the space, end it too.

## Beside Redis

- **Redis's own files.** Words that a reset, a forget or a deletion takes away are gone from Redis
  at once. A core has the append-only file rewritten within the hour (`BGREWRITEAOF`), where Redis
  lets it. The embedded server's files are in `HENJI_DATA_DIR/redis`.
- **Backups and exports.** A backup, a file of `henji admin export` or `henji admin preferences`,
  a folder of `henji compare` and an adapter of `henji align` keep the words they were made of.
  Delete them yourself.
- **Memory of the processes.** A core keeps the threads that it answered last, and their tokens in
  the model's cache, until others push them out or it ends: it reads none of them without asking
  Redis whether they hold. Nothing of it is written to a file.
- **Logs.** Ids of replies, threads and messages, and of who reset, configured or rated something;
  no words unless `HENJI_LOG_CONTENT` asks for them. For how long is up to whatever keeps your logs.
- **Metrics and traces.** No person, no channel and no text.
- **A remote engine** (`HENJI_ENGINE=openai`) is sent each prompt: as numbers of tokens, or with
  `HENJI_OPENAI_API=chat` as messages. `/privacy`, the bot's help, Slack's home page and
  `henji doctor` name its host.
- **Slack and Discord** keep their own messages, and what the bot posted there, by their own rules.

## Whose right is what

- **A person** can have forgotten what they wrote in a space, with the replies to it: in Slack on
  the bot's home page, in Discord with `/privacy`; an operator runs `henji admin forget
  --user PERSON --in PLATFORM:SPACE`. It takes away their turns, jobs, events, deliveries (those
  under way when they are over), dead letters and opinions of replies, and leaves a mark, so that
  the bot never reads that back from the channel.
- **A person** can take along what they wrote in a space, with the replies to it: `/privacy` in
  Discord, or `henji admin export`.
- **A person** can have nothing with their words or votes kept to train a model: in Slack on the
  bot's home page, in Discord with `/privacy`. Samples (`trace`, `sample`) exist only where the rule
  `collect` is on, which every reply there says. They go with any message, person, thread or place
  that is forgotten, edited, deleted or reset, and live as long as the reply's memory would. With
  them goes what people voted on them. Who has opted out stays on that list when forgotten.
- **Duels** (`duel`) hold the two answers and who voted for which. They go with their question, and
  with the person who asked; a vote goes with the person who gave it.
- **Edits and deletions** in the channel are made in the memory too.
- **A reset** of a thread, a channel or a space takes the words away before it returns. If its
  process dies meanwhile, a core finishes the work within a minute. A reply that is being delivered
  keeps its events until that is over. A mark and the audit log's entry stay.
- **A shorter retention** holds at once for the threads that there are. How a reply was brought out
  (`delivery`, `message`) that had already fallen out of its thread's memory keeps the term that it
  had, and so does the list of a person's threads (`person`).
- What stays when a person is forgotten: the marks, the lists that admins set (`rules`), the audit
  log (who did what, never what was said) for its own lifetime, and the day's counts of messages and
  tokens, so that forgetting does not renew a quota.
"""


THREADS = """\
A thread's name is made of the platform's ids of space, channel and thread. A conversation that is
one person's alone on Discord is named by that person's id.
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
    return ["| key | kind | what it holds | lifetime |", "|---|---|---|---|", *rows]


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
