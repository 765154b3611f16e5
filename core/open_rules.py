"""A rule book without rules, for processes and tests that keep none."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from core.errors import UsageError
from core.place_rules import NO_RULES, Rules
from core.queue_types import Place
from core.types import ThreadKey


class OpenRules:
    """`core.ports.RuleBook` without rules: nothing is set, and nothing can be."""

    async def rules(self, thread: ThreadKey) -> Rules:
        return NO_RULES

    async def set_here(self, place: Place) -> Rules:
        return NO_RULES

    async def remember_roles(self, place: Place, person: str, roles: Collection[str]) -> None:
        return

    async def roles_by_space(self, platform: str, person: str) -> Sequence[Collection[str]]:
        return ()

    async def change(self, place: Place, name: str, value: Any, by: str) -> None:
        raise UsageError("rules are not kept here")


OPEN_RULES = OpenRules()
