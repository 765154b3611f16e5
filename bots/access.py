"""Access, quotas and rules of places, decided once for all platforms.

An adapter names the person and their roles, knows the platform's admins, and passes on the words of
``/henji config`` or ``/admin config``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeAlias

from bots import strings
from core.access_policy import Asker, Permit, Policy
from core.errors import UsageError
from core.place_rules import (
    NAMES,
    NO_RULES,
    UNSET,
    UNSETTING,
    Persona,
    Rules,
    persona_from_text,
    rule_from_text,
    unsets,
)
from core.ports import Audit, RuleBook
from core.queue_types import AuditEntry, Place, TokenCounts
from core.types import DIRECT, Bounded

KEPT_ROLES = 10_000
"""The number of people whose stored roles a process remembers."""

PERSONA = "persona"

CountTokens: TypeAlias = Callable[[str], Awaitable[TokenCounts | None]]
"""Counts the tokens of a system prompt; None if no core can."""


@dataclass(frozen=True, slots=True)
class Admission:
    """The decision about one message."""

    permit: Permit
    lane: str
    """The lane whose model answers here."""
    names_place: bool = False
    """The system prompt contains the name of the channel or of the bot."""
    rules: Rules = NO_RULES


class Access:
    """The rules and the audit log, as the bots use them."""

    def __init__(
        self,
        rulebook: RuleBook,
        audit: Audit,
        policy: Policy,
        cores: Callable[[str], Awaitable[int]],
    ) -> None:
        """`cores` counts the cores that serve a lane."""
        self._cores = cores
        self.rulebook = rulebook
        self._audit = audit
        self._policy = policy
        self._known_roles = Bounded[tuple[str, str, str], frozenset[str]](KEPT_ROLES)

    async def admit(self, asker: Asker, lane: str) -> Admission:
        """Whether this person is answered, and by which lane; `lane` is the default.

        In a direct message, their roles from all their spaces apply.
        """
        here = await self.rulebook.in_thread(asker.thread)
        if asker.thread.space == DIRECT:
            asker = await self._with_roles(asker)
        permit = self._policy.permit(here.rules, asker)
        return Admission(permit, here.rules.model or lane, here.names_place, here.rules)

    async def _with_roles(self, asker: Asker) -> Asker:
        spaces = await self.rulebook.roles_by_space(asker.thread.platform, asker.person)
        roles = {role for roles in spaces for role in roles}
        return replace(asker, roles=tuple(roles), elsewhere=tuple(spaces))

    async def remember_roles(self, asker: Asker) -> None:
        """Store the roles of a person who writes in a space, if they are new."""
        thread = asker.thread
        if thread.space == DIRECT or not (asker.roles or self._known_roles):
            return  # a platform without roles
        key, roles = (thread.platform, thread.space, asker.person), frozenset(asker.roles)
        if self._known_roles.get(key) != roles:
            self._known_roles[key] = roles
            place = Place(thread.platform, thread.space)
            await self.rulebook.remember_roles(place, asker.person, roles)

    async def is_served(self, lane: str) -> bool:
        """Whether a core serves a lane now."""
        return await self._cores(lane) > 0

    def is_admin(self, asker: Asker, *, of_platform: bool) -> bool:
        """Whether a person may administer; `of_platform`: the platform says they may."""
        return self._policy.is_admin(asker, of_platform=of_platform)

    def permits_training(self, platform: str) -> bool:
        """Whether the operator permits training on messages of a platform."""
        return self._policy.permits_training(platform)

    async def record(self, place: Place, by: str, act: str, detail: str = "") -> None:
        """Add an entry to the audit log. Resets and new rules are added without this."""
        await self._audit.append(place, by, act, detail)

    # -- commands -------------------------------------------------------------------------------

    async def configure(
        self,
        place: Place,
        words: str,
        by: str,
        locale: str,
        ids: Callable[[str], str] = str,
        count_tokens: CountTokens | None = None,
    ) -> str:
        """The answer to ``config``, ``config NAME``, ``config NAME VALUE`` in a place.

        ``space`` in front means the whole space; ``persona NAME RULE VALUE`` sets a rule of a
        persona. The caller has checked that `by` is an admin. `ids` replaces the platform's
        mentions by ids. An invalid value changes nothing.
        """
        place, words = _parse_place(place, words)
        name, _, text = words.strip().partition(" ")
        try:
            if not name:
                return await self._shown(place, locale)
            if name == PERSONA:
                return await self._configure_persona(place, text, by, locale, count_tokens)
            if not text.strip():
                return await self._shown_one(place, name, locale)
            value = rule_from_text(name, None if unsets(name, text) else text, ids)
            self._policy.check(place.platform, name, value)
            warning = await check_prompt(name, value, count_tokens, locale)
        except UsageError as error:
            return strings.say("config_wrong", locale, reason=error)
        await self.rulebook.change(place, name, value, by)
        key = "config_unset" if value is None else "config_set"
        said = strings.say(key, locale, name=name, value=rule_text(value))
        unserved = [lane for lane in _lanes(name, value) if not await self._cores(lane)]
        told = [strings.say("config_unserved", locale, model=lane) for lane in unserved]
        if name == "collect" and value:
            told.append(strings.say("config_collects", locale))
        return "\n".join(filter(None, (said, *told, warning)))

    async def _configure_persona(
        self, place: Place, words: str, by: str, locale: str, count_tokens: CountTokens | None
    ) -> str:
        """The answer to ``persona NAME``, ``persona NAME RULE VALUE``, ``persona NAME unset``."""
        name, rule, text = [*words.split(maxsplit=2), "", "", ""][:3]
        known = (await self.rulebook.set_here(place)).personas or {}
        if not rule or not (text or rule in UNSETTING):
            return _shown_persona(name, known, locale)
        personas = persona_from_text(name, rule, text, known)
        value = None if rule in UNSETTING else getattr(personas[name], rule)
        self._policy.check_ceiling(rule, value)
        warning = await check_prompt(rule, value, count_tokens, locale)
        if rule in UNSETTING:
            warning = strings.say("persona_gone", locale)
        await self.rulebook.change(place, "personas", personas, by)
        shown = f"{PERSONA} {name}" if rule in UNSETTING else f"{PERSONA} {name} {rule}"
        key = "config_unset" if value is None else "config_set"
        said = strings.say(key, locale, name=shown, value=rule_text(value))
        return "\n".join(filter(None, (said, warning)))

    async def _shown(self, place: Place, locale: str) -> str:
        here = (await self.rulebook.set_here(place)).set_here()
        if not here:
            return strings.say("config_nothing", locale, names=", ".join(NAMES))
        lines = [f"{name} = {rule_text(value)}" for name, value in here.items()]
        return strings.say("config_shown", locale, rules="\n".join(lines))

    async def _shown_one(self, place: Place, name: str, locale: str) -> str:
        rule_from_text(name, None)
        here = (await self.rulebook.set_here(place)).set_here()
        if name not in here:
            return strings.say("config_not_set", locale, name=name)
        return strings.say("config_shown", locale, rules=f"{name} = {rule_text(here[name])}")

    async def audited(self, place: Place, by: str, locale: str, most: int = 15) -> str:
        """The newest entries of the audit log for a place. Reading it adds an entry."""
        entries = await self._audit.entries(place, most)
        await self._audit.append(place, by, "read", "audit")
        if not entries:
            return strings.say("audit_nothing", locale)
        return "\n".join(self._line(entry) for entry in entries)

    def _line(self, entry: AuditEntry) -> str:
        at = datetime.fromtimestamp(entry.at, self._policy.zone)
        words = (f"{at:%Y-%m-%d %H:%M}", entry.by, entry.act, entry.place, entry.detail)
        return " · ".join(word for word in words if word)


async def check_prompt(name: str, value: Any, count_tokens: CountTokens | None, locale: str) -> str:
    """A warning if the tokens of a new system prompt could not be counted; else an empty string.

    UsageError if it takes more than half of the context.
    """
    if name != "system_prompt" or not value or count_tokens is None:
        return ""
    counts = await count_tokens(value)
    if counts is None:
        return strings.say("config_unmeasured", locale)
    tokens, most = counts.tokens[0], counts.context // 2
    if tokens > most:
        raise UsageError(strings.say("prompt_too_long", locale, tokens=tokens, most=most))
    return ""


def _lanes(name: str, value: Any) -> Sequence[str]:
    """The lanes that a rule names."""
    if not value or name not in ("model", "models"):
        return ()
    return (value,) if name == "model" else tuple(value)


def _shown_persona(name: str, known: Mapping[str, Persona], locale: str) -> str:
    if name not in known:
        return strings.say("config_not_set", locale, name=f"{PERSONA} {name}".strip())
    rules = known[name].set_here().items()
    lines = [f"{PERSONA} {name} {rule} = {rule_text(value)}" for rule, value in rules]
    return strings.say("config_shown", locale, rules="\n".join(lines))


def _parse_place(place: Place, words: str) -> tuple[Place, str]:
    first, _, rest = words.strip().partition(" ")
    return (replace(place, channel=None), rest) if first == "space" else (place, words)


def rule_text(value: Any) -> str:
    """A rule's value as a person would type it."""
    match value:
        case None:
            return UNSET
        case bool():
            return "on" if value else "off"
        case tuple():
            return ", ".join(value) or "-"
        case dict():
            return ", ".join(value)
    return str(value)
