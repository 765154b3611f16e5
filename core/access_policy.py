"""Access and quotas: decisions by the rules of henji.toml and of a place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from functools import reduce
from typing import Any

from pydantic import BaseModel, ConfigDict

from core.errors import UsageError
from core.place_rules import (
    DAY,
    NO_CHOICE,
    NO_RULES,
    QUOTAS,
    TERMINAL,
    Choice,
    Count,
    Entry,
    Rules,
    scopes,
)
from core.types import ThreadKey


@dataclass(frozen=True, slots=True)
class Asker:
    """The person who asks, and the place."""

    thread: ThreadKey
    person: str
    roles: Collection[str] = ()
    stranger: bool = False
    """From another organisation, in a workspace that does not answer such people."""
    elsewhere: Sequence[Collection[str]] = ()
    """In a direct message: the person's roles in each known space."""


@dataclass(frozen=True, slots=True)
class DayCounts:
    """Numbers of one day: of a person in a space, of a channel, of a person in all spaces."""

    person_messages: int = 0
    person_tokens: int = 0
    channel_messages: int = 0
    channel_tokens: int = 0
    all_messages: int = 0
    all_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Quota(DayCounts):
    """The limits of a day; 0: none. One script counts."""

    offset_ms: int = 0
    """The local clock's offset from UTC: a day begins at local midnight."""


@dataclass(frozen=True, slots=True)
class Permit:
    """The decision about one message, for the script that stores it."""

    refuse: str = ""
    """The code of the refusal; empty: the person may ask."""
    read: bool = True
    """Whether the model reads this person's messages to others."""
    quota: Quota = Quota()
    retention: float | None = None
    """Seconds that the thread is kept after its last message; None: the default."""


OPEN_PERMIT = Permit()
"""No limits."""


class Table(BaseModel):
    """A table of henji.toml that holds for all places."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AccessLists(Table):
    """[access]: who may ask. Each entry is an id, or ``platform:id``. An empty allow list admits
    everybody who is not denied."""

    allow_spaces: tuple[Entry, ...] = ()
    deny_spaces: tuple[Entry, ...] = ()
    allow_channels: tuple[Entry, ...] = ()
    deny_channels: tuple[Entry, ...] = ()
    allow_people: tuple[Entry, ...] = ()
    deny_people: tuple[Entry, ...] = ()
    allow_roles: tuple[Entry, ...] = ()
    deny_roles: tuple[Entry, ...] = ()

    def denies(self, asker: Asker) -> bool:
        """Whether the place, this person or one of their roles is on a deny list."""
        thread = asker.thread
        matcher = _EntryMatcher(thread.platform)
        return (
            matcher.contains(self.deny_spaces, {thread.space})
            or matcher.contains(self.deny_channels, {thread.channel})
            or matcher.contains(self.deny_people, {asker.person})
            or matcher.contains(self.deny_roles, asker.roles)
        )

    def admits(self, asker: Asker) -> bool:
        """Whether this person may ask there: a denial takes precedence over a permission."""
        thread = asker.thread
        matcher = _EntryMatcher(thread.platform)
        return (
            not self.denies(asker)
            and matcher.allows(self.allow_spaces, {thread.space})
            and matcher.allows(self.allow_channels, {thread.channel})
            and (
                not (self.allow_people or self.allow_roles)
                or matcher.contains(self.allow_people, {asker.person})
                or matcher.contains(self.allow_roles, asker.roles)
            )
        )


NO_LISTS = AccessLists()


@dataclass(frozen=True, slots=True)
class _EntryMatcher:
    """Matches ids of a platform with the entries of lists."""

    platform: str

    def contains(self, entries: Collection[str], ids: Iterable[str]) -> bool:
        if not entries:
            return False
        return any(id_ in entries or f"{self.platform}:{id_}" in entries for id_ in ids)

    def allows(self, entries: Collection[str], ids: Iterable[str]) -> bool:
        """An empty allow list allows all."""
        return not entries or self.contains(entries, ids)


class Allowance(Table):
    """[role_quotas.ROLE]: the daily quota of each person with the role, instead of the place's; 0
    is no limit."""

    messages: Count | None = None
    tokens: Count | None = None


NO_ALLOWANCE = Allowance()


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of henji.toml, combined with those of a place into decisions."""

    access: AccessLists = NO_LISTS
    everywhere: Rules = NO_RULES
    """The default quotas."""
    spaces: Mapping[str, Rules] = field(default_factory=dict)
    channels: Mapping[str, Rules] = field(default_factory=dict)
    roles: Mapping[str, Allowance] = field(default_factory=dict)
    ceilings: Rules = NO_RULES
    """Limits that no place can lift."""
    person: Allowance = NO_ALLOWANCE
    """A person's quota in all spaces together."""
    admins: Sequence[str] = ()
    training_permitted: Collection[str] = ()
    """Platforms whose messages the host permits for training."""
    zone: tzinfo = UTC
    """Its midnight begins a day."""
    system_prompt: str = ""
    """The default of places."""

    def rules(
        self, thread: ThreadKey, of_space: Rules, of_channel: Rules, choice: Choice = NO_CHOICE
    ) -> Rules:
        """The rules in force in a thread: of the file, of its admins for its space and channel, and
        of people's choices for it."""
        rules = reduce(Rules.over, self.layers(thread, of_space, of_channel).values())
        if rules.collect and not self.permits_training(thread.platform):
            rules = rules.model_copy(update={"collect": False})
        return self._capped(choice.over(rules))

    def _capped(self, rules: Rules) -> Rules:
        ceilings = self.ceilings.set_here()
        return rules.model_copy(
            update={name: most for name, most in ceilings.items() if _is_over(rules, name, most)}
        )

    def permits_training(self, platform: str) -> bool:
        """Whether the host permits a platform's messages for training."""
        return platform == TERMINAL or platform in self.training_permitted

    def check(self, platform: str, name: str, value: Any) -> None:
        """UsageError if the host does not permit that value of a rule there."""
        self.check_ceiling(name, value)
        if name == "collect" and value and not self.permits_training(platform):
            raise UsageError(training_refused(platform))

    def check_ceiling(self, name: str, value: Any) -> None:
        """UsageError if the value of a rule is above the host's ceiling."""
        most = self.ceilings.set_here().get(name)
        if most and value is not None and (value > most or (name in QUOTAS and value == 0)):
            raise UsageError(f"{name} can be at most {most}: whoever runs the bot has set that")

    def layers(self, thread: ThreadKey, of_space: Rules, of_channel: Rules) -> dict[str, Rules]:
        """The rules for a thread by their source, in order of precedence."""
        space, channel = scopes(thread)
        return {
            f"an admin, for {channel}": of_channel,
            f'[channels."{channel}"]': self.channels.get(channel, NO_RULES),
            f"an admin, for {space}": of_space,
            f'[spaces."{space}"]': self.spaces.get(space, NO_RULES),
            "[quota]": self.everywhere,
        }

    def permit(self, rules: Rules, asker: Asker) -> Permit:
        """The decision about a message, by the rules of its thread."""
        days = rules.retention_days
        retention = None if days is None else days * DAY
        return Permit(
            refuse=self._refusal(rules, asker),
            read=not self.denies(rules, asker),
            quota=self._quota(rules, asker),
            retention=retention,
        )

    def _refusal(self, rules: Rules, asker: Asker) -> str:
        """The code of the sentence of refusal; empty if the person may ask here."""
        if asker.stranger:
            return "stranger"
        may = not self.denies(rules, asker) and self.access.admits(asker)
        return "" if may and _lists_of(rules).admits(asker) else "not_allowed"

    def denies(self, rules: Rules, asker: Asker) -> bool:
        """Whether this person's messages are not read here, by the deny lists."""
        here = _lists_of(rules)
        closed = rules.enabled is False or asker.stranger
        return closed or self.access.denies(asker) or here.denies(asker)

    def _quota(self, rules: Rules, asker: Asker) -> Quota:
        """A person's quota here: a role's quota takes precedence over the place's."""
        return Quota(
            person_messages=self._strictest("messages", rules.person_messages, asker),
            person_tokens=self._strictest("tokens", rules.person_tokens, asker),
            channel_messages=rules.channel_messages or 0,
            channel_tokens=rules.channel_tokens or 0,
            all_messages=self.person.messages or 0,
            all_tokens=self.person.tokens or 0,
            offset_ms=self.offset_ms,
        )

    @property
    def offset_ms(self) -> int:
        """How far the clock of the quotas is ahead of UTC now."""
        offset = datetime.now(self.zone).utcoffset()
        return round(offset.total_seconds() * 1000) if offset else 0

    def _strictest(self, kind: str, default: int | None, asker: Asker) -> int:
        """A person's limit: in a direct message, the lowest of their spaces."""
        in_spaces = [replace(asker, roles=roles) for roles in asker.elsewhere] or [asker]
        limits = [self._person_limit(kind, default, one) for one in in_spaces]
        return min((limit for limit in limits if limit), default=0)

    def _person_limit(self, kind: str, default: int | None, asker: Asker) -> int:
        """The highest limit of a person's roles, or else everybody's."""
        names = [*asker.roles, *(f"{asker.thread.platform}:{role}" for role in asker.roles)]
        given = [getattr(self.roles[name], kind) for name in names if name in self.roles]
        counts = [count for count in given if count is not None]
        if not counts:
            return default or 0
        return 0 if 0 in counts else max(counts)

    def is_admin(self, asker: Asker, *, of_platform: bool) -> bool:
        """Whether a person is an admin: of the platform, or by the list (of people or roles)."""
        matcher = _EntryMatcher(asker.thread.platform)
        return of_platform or matcher.contains(self.admins, {asker.person, *asker.roles})


def training_refused(platform: str) -> str:
    """The sentence for a platform where collecting is not permitted."""
    return (
        f"collect needs training_permitted to name {platform}: its terms restrict training on what "
        "it hands out, and whoever runs the bot must have cleared that"
    )


def _is_over(rules: Rules, name: str, most: float) -> bool:
    """Whether a rule allows more than `most`; a quota of 0 is no limit at all."""
    value = getattr(rules, name)
    if not most:
        return False
    return not value if name in QUOTAS and not value else value is not None and value > most


def _lists_of(rules: Rules) -> AccessLists:
    if not (rules.allow_people or rules.deny_people or rules.allow_roles or rules.deny_roles):
        return NO_LISTS  # without the cost of a new one for every message
    return AccessLists(
        allow_people=rules.allow_people or (),
        deny_people=rules.deny_people or (),
        allow_roles=rules.allow_roles or (),
        deny_roles=rules.deny_roles or (),
    )
