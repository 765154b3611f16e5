"""Rules for a place: who may ask, how much, and how the bot answers there.

A rule is set for a space or for a channel, in henji.toml or by an admin in the chat; what is set
for the channel goes before what is set for its space, and what an admin set goes before the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from functools import reduce
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from core.errors import UsageError
from core.types import Sampling, ThreadKey

Ident: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[^\s,:@<>&|#]{1,64}$")]
"""A platform's id of a person, a role, a channel or a space. A name with an @ is none: a list that
held one would let through whom it was to keep out."""

Entry: TypeAlias = Annotated[str, StringConstraints(pattern=r"^(\w+:)?[^\s,:@<>&|#]{1,64}$")]
"""The same in a list that holds for all platforms: ``U024``, or ``slack:U024``."""

Lane: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[^\s:{}]{1,128}$")]

Count: TypeAlias = Annotated[int, Field(ge=0, le=10**9)]


class Rules(BaseModel):
    """What is set for one place; None: nothing. Quotas are for a day, and 0 is no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    enabled: bool | None = None
    """False: nobody is answered here."""
    allow_people: tuple[Ident, ...] | None = None
    """Only these, and who has one of `allow_roles`."""
    deny_people: tuple[Ident, ...] | None = None
    allow_roles: tuple[Ident, ...] | None = None
    deny_roles: tuple[Ident, ...] | None = None

    person_messages: Count | None = None
    """A person's messages that are answered."""
    person_tokens: Count | None = None
    """Tokens of the prompts and replies of a person's messages."""
    channel_messages: Count | None = None
    channel_tokens: Count | None = None

    model: Lane | None = None
    """The lane that answers: one that a core of that model serves."""
    system_prompt: Annotated[str, Field(max_length=8000)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=5, strict=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, strict=False)] | None = None
    top_k: Annotated[int, Field(ge=0, le=10**6)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10, strict=False)] | None = None

    follow_up: Literal["always", "alone", "mention"] | None = None
    """In a thread that the bot takes part in: answer everything, what one person says while they
    are alone with it, or mentions only."""
    retention_days: Annotated[float, Field(ge=1, le=400, strict=False)] | None = None
    """A thread that is quiet for so long is forgotten."""

    def over(self, below: Rules) -> Rules:
        """These, and `below` where these say nothing."""
        return below.model_copy(update=self.set_here())

    def set_here(self) -> dict[str, Any]:
        """The rules that are set, by name."""
        return {name: value for name in NAMES if (value := getattr(self, name)) is not None}

    def sampling(self, usual: Sampling) -> Sampling:
        """How the next token is chosen here."""
        return Sampling(
            temperature=_first(self.temperature, usual.temperature),
            top_p=_first(self.top_p, usual.top_p),
            top_k=_first(self.top_k, usual.top_k),
            repetition_penalty=_first(self.repetition_penalty, usual.repetition_penalty),
        )


SHOWN = 60
"""Characters of a wrong value that a sentence repeats."""

NAMES = tuple(Rules.model_fields)
NOTHING = Rules()
DAY = 24 * 3600


def scopes(thread: ThreadKey) -> tuple[str, str]:
    """What a thread's space and channel are called: ``slack:T024`` and ``slack:T024:C123``."""
    parts = str(thread).split(":")
    return ":".join(parts[:2]), ":".join(parts[:3])


def _first(value: Any, usual: Any) -> Any:
    return usual if value is None else value


def read_rules(table: Mapping[str, Any], where: str) -> Rules:
    """Rules as a file or the store has them; UsageError, one sentence, where they are wrong."""
    try:
        return Rules.model_validate_json(json.dumps(table))
    except (ValidationError, TypeError, ValueError) as error:
        raise UsageError(f"{where}: {_sentence(error)}") from None


def rule_from_text(name: str, text: str | None) -> Any:
    """The value of a rule as a person types it; None for None; UsageError where it is none.

    Lists are written with commas, an empty list as ``-``, truth as ``on`` and ``off``; a mention
    stands for the id in it.
    """
    if name not in NAMES:
        raise UsageError(f"{name} is no rule{_nearest(name)}")
    if text is None:
        return None
    where = f"{name} = {text if len(text) <= SHOWN else text[:SHOWN] + '…'}"
    return getattr(read_rules({name: _typed(name, text.strip())}, where), name)


MENTION = re.compile(r"<@[!&]?(\w+)(?:\|[^>]*)?>")
"""Of a person or a role, as Slack and Discord send it."""


def _typed(name: str, text: str) -> Any:
    kind = str(Rules.model_fields[name].annotation)
    if "tuple" in kind:
        plain = MENTION.sub(r" \1 ", text)
        return [part for part in re.split(r"[\s,]+", plain) if part not in ("", "-")]
    if "bool" in kind:
        return {"on": True, "true": True, "off": False, "false": False}.get(text.lower(), text)
    if "int" in kind or "float" in kind:
        number = text.replace("_", "")
        return int(number) if re.fullmatch(r"[+-]?\d{1,18}", number) else _float(number)
    return text


def _float(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _nearest(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, NAMES, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(NAMES)}"


def _sentence(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return "this is no table of rules"
    fault = error.errors()[0]
    name = str(fault["loc"][0]) if fault["loc"] else ""
    if fault["type"] == "extra_forbidden":
        return f"{name} is no rule{_nearest(name)}"
    if fault["type"] == "string_pattern_mismatch":
        wanted = "the name of a model" if name == "model" else "an id such as U024 or 8123"
        return f"{name} is wrong: {str(fault['input'])[:SHOWN]!r} is not {wanted}"
    return f"{name} is wrong: {fault['msg'][:1].lower()}{fault['msg'][1:]}"


# -- from rules to a decision -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, where."""

    thread: ThreadKey
    person: str
    roles: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Quota:
    """How much may be asked until the day ends; 0 is no limit. Counted by one script."""

    person_messages: int = 0
    person_tokens: int = 0
    channel_messages: int = 0
    channel_tokens: int = 0
    offset_ms: int = 0
    """How far the local clock is ahead of UTC: at local midnight a new day begins."""


@dataclass(frozen=True, slots=True)
class Permit:
    """What the rules say of one message, for the script that takes it in."""

    refuse: str = ""
    """The code of the sentence for one who may not ask here."""
    quota: Quota = Quota()
    retention: float | None = None
    """Seconds that the thread is kept after its last message; None: as long as any."""


FREE = Permit()
"""All may ask, as much as they like."""


class Table(BaseModel):
    """A table of henji.toml that holds for all places."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Access(Table):
    """[access]: who may ask. Each entry is an id, or ``platform:id``; with an empty allow list all
    may who are not denied."""

    allow_spaces: tuple[Entry, ...] = ()
    deny_spaces: tuple[Entry, ...] = ()
    allow_channels: tuple[Entry, ...] = ()
    deny_channels: tuple[Entry, ...] = ()
    allow_people: tuple[Entry, ...] = ()
    deny_people: tuple[Entry, ...] = ()
    allow_roles: tuple[Entry, ...] = ()
    deny_roles: tuple[Entry, ...] = ()

    def admits(self, asker: Asker) -> bool:
        """Whether this person may ask there: a denial goes before a permission."""
        thread = asker.thread
        named = _Names(thread.platform)
        return (
            named.pass_(self.allow_spaces, self.deny_spaces, {thread.space})
            and named.pass_(self.allow_channels, self.deny_channels, {thread.channel})
            and not named.among(self.deny_people, {asker.person})
            and not named.among(self.deny_roles, asker.roles)
            and (
                not (self.allow_people or self.allow_roles)
                or named.among(self.allow_people, {asker.person})
                or named.among(self.allow_roles, asker.roles)
            )
        )


OPEN = Access()


@dataclass(frozen=True, slots=True)
class _Names:
    """Ids of a platform, as lists name them."""

    platform: str

    def among(self, entries: Collection[str], ids: Iterable[str]) -> bool:
        return any(id_ in entries or f"{self.platform}:{id_}" in entries for id_ in ids)

    def pass_(self, allowed: Collection[str], denied: Collection[str], ids: set[str]) -> bool:
        return not self.among(denied, ids) and (not allowed or self.among(allowed, ids))


class Allowance(Table):
    """[role_quotas.ROLE]: what each person with a role may ask in a day, in place of what others
    may; 0 is no limit."""

    messages: Count | None = None
    tokens: Count | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of henji.toml, and how they make a decision with those of a place."""

    access: Access = OPEN
    everywhere: Rules = NOTHING
    """The quotas that hold where nothing else is said."""
    spaces: Mapping[str, Rules] = field(default_factory=dict)
    channels: Mapping[str, Rules] = field(default_factory=dict)
    roles: Mapping[str, Allowance] = field(default_factory=dict)
    admins: Sequence[str] = ()
    zone: tzinfo = UTC
    """Its midnight begins a day."""

    def rules(self, thread: ThreadKey, of_space: Rules, of_channel: Rules) -> Rules:
        """What holds in a thread, with what its admins have set for its space and channel."""
        space, channel = scopes(thread)
        layers = (
            of_channel,
            self.channels.get(channel, NOTHING),
            of_space,
            self.spaces.get(space, NOTHING),
            self.everywhere,
        )
        return reduce(Rules.over, layers)

    def permit(self, rules: Rules, asker: Asker) -> Permit:
        """What becomes of a message, by the rules that hold where it was written."""
        days = rules.retention_days
        retention = None if days is None else days * DAY
        return Permit(self._refusal(rules, asker), self._quota(rules, asker), retention)

    def _refusal(self, rules: Rules, asker: Asker) -> str:
        """The code of the sentence for one who may not ask here; empty for one who may."""
        here = Access(
            allow_people=rules.allow_people or (),
            deny_people=rules.deny_people or (),
            allow_roles=rules.allow_roles or (),
            deny_roles=rules.deny_roles or (),
        )
        may = rules.enabled is not False and self.access.admits(asker) and here.admits(asker)
        return "" if may else "not_allowed"

    def _quota(self, rules: Rules, asker: Asker) -> Quota:
        """What a person may ask here in a day: what a role allows goes before what a place does."""
        offset = datetime.now(self.zone).utcoffset()
        return Quota(
            person_messages=self._personal("messages", rules.person_messages, asker),
            person_tokens=self._personal("tokens", rules.person_tokens, asker),
            channel_messages=rules.channel_messages or 0,
            channel_tokens=rules.channel_tokens or 0,
            offset_ms=round(offset.total_seconds() * 1000) if offset else 0,
        )

    def _personal(self, kind: str, usual: int | None, asker: Asker) -> int:
        """The most that one of a person's roles gives, else what everyone has."""
        names = [*asker.roles, *(f"{asker.thread.platform}:{role}" for role in asker.roles)]
        given = [getattr(self.roles[name], kind) for name in names if name in self.roles]
        counts = [count for count in given if count is not None]
        if not counts:
            return usual or 0
        return 0 if 0 in counts else max(counts)

    def is_admin(self, asker: Asker, *, of_platform: bool) -> bool:
        """Whether a person may administer: the platform says so, or the list has them or a role."""
        named = _Names(asker.thread.platform)
        return of_platform or named.among(self.admins, {asker.person, *asker.roles})
