"""A rulebook and an access policy for tests: everybody may ask, and no place has rules."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from bots.access import Access
from core.access_policy import Policy
from core.errors import UsageError
from core.place_rules import NO_RULES, Choice, Rules, ThreadRules
from core.queue_types import AuditEntry, Place
from core.types import ThreadKey


class OpenRules:
    """`core.ports.RuleBook` without rules: nothing is set, and nothing can be."""

    async def rules(self, thread: ThreadKey) -> Rules:
        return NO_RULES

    async def in_thread(self, thread: ThreadKey) -> ThreadRules:
        return ThreadRules(NO_RULES)

    async def choose(self, thread: ThreadKey, choice: Choice) -> None:
        raise UsageError("choices are not kept here")

    async def remember_names(self, thread: ThreadKey, channel: str, bot: str) -> None:
        return

    async def set_here(self, place: Place) -> Rules:
        return NO_RULES

    async def remember_roles(self, place: Place, person: str, roles: Collection[str]) -> None:
        return

    async def roles_by_space(self, platform: str, person: str) -> Sequence[Collection[str]]:
        return ()

    async def change(self, place: Place, name: str, value: Any, by: str) -> None:
        raise UsageError("rules are not kept here")

    async def denied(self, thread: ThreadKey, people: Collection[str]) -> Collection[str]:
        return ()


OPEN_RULES = OpenRules()


class NoAudit:
    """`core.ports.Audit` that keeps nothing."""

    async def append(self, place: Place, by: str, act: str, detail: str = "") -> None:
        return

    async def entries(self, place: Place, most: int) -> Sequence[AuditEntry]:
        return ()


async def _no_cores(lane: str) -> int:
    return 0


EVERYBODY = Access(OPEN_RULES, NoAudit(), Policy(), _no_cores)
