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

Everything is in your own Redis, in keys that begin with `henji:{BUCKET}:`. Nothing is written to
files, and what people and the model say is in no log unless `HENJI_LOG_CONTENT` asks for it. Each
key has a lifetime, which begins anew when it is written; *retention* is `HENJI_RETENTION_DAYS`
(30), or what is set for the channel or the space (`retention_days`), from a thread's last message
on.
"""

FOOT = """\
## Whose right is what

- **A person** can have forgotten what they wrote in a space, with the replies to it: in Slack on
  the bot's home page, in Discord with `/privacy`; an operator runs `henji admin forget PERSON --in
  PLATFORM:SPACE`. It takes away their turns, jobs, events, deliveries that are over, dead
  letters and opinions of replies, and leaves a mark, so that the bot never reads that back from
  the channel.
- **A person** can take along what is kept of them: `/privacy` in Discord, or `henji admin export`.
- **Edits and deletions** in the channel are made in the memory too.
- **A reset** of a thread, a channel or a space leaves only a mark and the audit log's entry.
- What stays when a person is forgotten: the marks, the audit log (who did what, never what was
  said) for its own lifetime, and the day's counts of messages and tokens, so that forgetting does
  not renew a quota.
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
            "\n## With neither\n",
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
