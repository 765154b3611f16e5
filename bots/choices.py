"""People's choices for a thread: the model that answers, and its persona."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from bots.actions import Actions, Actor
from bots.relay import Relay
from bots.strings import say
from core.place_rules import UNSET, Choice, ThreadRules
from core.types import ThreadKey

ChoiceKind: TypeAlias = Literal["model", "persona"]
KINDS: tuple[ChoiceKind, ...] = ("model", "persona")
MOST_SHOWN = 25
"""Options of a picker, unless the platform has another limit."""
LABEL_LENGTH = 75
"""Characters that every platform's picker shows."""


@dataclass(frozen=True, slots=True)
class Option:
    """One entry of a picker."""

    value: str
    label: str
    chosen: bool


class Choices:
    """People's choices for one thread: the model that answers, and its persona.

    Admins set the options of a place with the rules `models` and `personas`. Without a choice, a
    thread uses the defaults of its place.
    """

    def __init__(self, relay: Relay, actions: Actions) -> None:
        self._relay = relay
        self._actions = actions

    async def offered(
        self,
        thread: ThreadKey,
        kind: ChoiceKind,
        locale: str,
        typed: str = "",
        most: int = MOST_SHOWN,
    ) -> Sequence[Option]:
        """The options of a picker, the default first, filtered by the typed letters."""
        here = await self._relay.access.rulebook.in_thread(thread)
        now = getattr(here.kept, kind)
        names = [name for name in _names(here, kind) if typed.lower() in name.lower()]
        usual = [Option(UNSET, say("choice_usual", locale), not now)] if typed in UNSET else []
        named = [
            Option(name, await self._label(kind, name, locale), name == now)
            for name in names[: most - len(usual)]
        ]
        return [*usual, *named]

    async def _label(self, kind: ChoiceKind, name: str, locale: str) -> str:
        if kind == "persona" or await self._relay.access.is_served(name):
            return name
        return say("choice_away", locale, name=name)[:LABEL_LENGTH]

    async def shown(self, thread: ThreadKey, kind: ChoiceKind, locale: str) -> str:
        """A sentence with the current model or persona of a thread, and its options."""
        here = await self._relay.access.rulebook.in_thread(thread)
        model = here.rules.model or self._relay.settings.lane
        persona = here.kept.persona or say("choice_usual", locale)
        said = say(kind, locale, model=model, persona=persona)
        names = [await self._label(kind, name, locale) for name in _names(here, kind)]
        offered = say("choice_offered", locale, names=", ".join(names)) if names else ""
        lost = [say("choice_lost", locale, name=name) for name in here.lost]
        return "\n".join(filter(None, (said, *lost, offered)))

    async def choose(
        self, actor: Actor, threads: Sequence[ThreadKey], kind: ChoiceKind, name: str, locale: str
    ) -> str:
        """Choose for conversations, or go back to the default with `UNSET`; the answer."""
        for thread in threads:
            if refusal := await self._actions.refusal(actor, thread):
                return refusal.sentence(locale)
        here = await self._relay.access.rulebook.in_thread(threads[0])
        if name != UNSET and name not in _names(here, kind):
            return say("choice_unknown", locale, name=name[:LABEL_LENGTH])
        if kind == "model" and name != UNSET and not await self._relay.access.is_served(name):
            return say("choice_refused", locale, name=name)
        for thread in threads:
            kept = (await self._relay.access.rulebook.in_thread(thread)).kept
            await self._relay.access.rulebook.choose(thread, _changed(kept, kind, name))
        return say("choice_unset" if name == UNSET else "choice_set", locale, name=name)


def _changed(kept: Choice, kind: ChoiceKind, name: str) -> Choice:
    value = "" if name == UNSET else name
    return replace(kept, model=value) if kind == "model" else replace(kept, persona=value)


def _names(here: ThreadRules, kind: ChoiceKind) -> Sequence[str]:
    return here.rules.models or () if kind == "model" else sorted(here.rules.personas or {})
