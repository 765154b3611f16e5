"""One model's dialogue with the sampling, reply length and system prompt of a place."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import structlog

from core.bounded import Bounded
from core.dialogue import Dialogue
from core.errors import ModelError, TurnTooLong
from core.models.catalogue import ModelSpec
from core.place_rules import NO_RULES, Rules
from core.types import Turn

MAX_DIALOGUES = 64
"""Dialogues that are kept; the least recently used goes first."""

SHORT_TURN = Turn("", "user", "", "こんにちは、お元気ですか?" * 4, 0.0)
"""A turn that must fit beside a place's system prompt."""

_Key: TypeAlias = tuple[ModelSpec, str | None]

log = structlog.get_logger()


class PlaceDialogues:
    """The model's default dialogue, and its variants by sampling, reply length, system prompt."""

    def __init__(self, default: Dialogue) -> None:
        self.default = default
        self._by_rules = Bounded[_Key, Dialogue](MAX_DIALOGUES)

    def of(self, rules: Rules) -> Dialogue:
        """The dialogue where these rules hold."""
        if rules == NO_RULES:
            return self.default
        spec = spec_with_rules(self.default.spec, rules)
        key = (spec, rules.system_prompt)
        if key == (self.default.spec, None):
            return self.default
        if key not in self._by_rules:
            self._by_rules[key] = self._create(spec, rules.system_prompt)
        self._by_rules.move_to_end(key)
        return self._by_rules[key]

    def _create(self, spec: ModelSpec, system_prompt: str | None) -> Dialogue:
        try:
            dialogue = self.default.with_spec(spec, system_prompt)
            if system_prompt is not None:
                dialogue.prompt([SHORT_TURN], low_water=1.0)
        except (ModelError, TurnTooLong) as error:
            log.warning("a place's system prompt does not go with the model", error=str(error))
            return self.default.with_spec(spec, None)
        return dialogue


def spec_with_rules(spec: ModelSpec, rules: Rules) -> ModelSpec:
    """The spec where these rules hold. A reply is never longer than half the context."""
    wanted = rules.max_new_tokens or spec.max_new_tokens
    longest = max(spec.max_new_tokens, spec.context_length // 2)
    return replace(
        spec, sampling=rules.sampling(spec.sampling), max_new_tokens=min(wanted, longest)
    )
