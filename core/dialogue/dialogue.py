"""Turns to token ids that fit the model, and token ids to the text of a reply."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from core.dialogue.formats.base import Format
from core.dialogue.formats.load import load_format
from core.dialogue.reply import Reply
from core.dialogue.tokenizer import Tokenizer, load_tokenizer
from core.errors import TurnTooLong
from core.models import ModelSpec
from core.types import Turn


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the engine gets, and what the store should know of it."""

    ids: tuple[int, ...]
    dropped: int
    """Whole turns that fell from the old end."""
    counts: Mapping[str, int]
    """Turn id -> tokens that the turn takes in a prompt, for the turns that are in this one."""


class Dialogue:
    """One model's way to talk."""

    def __init__(self, spec: ModelSpec, tokenizer: Tokenizer, form: Format) -> None:
        self.spec = spec
        self.tokenizer = tokenizer
        self._format = form
        self.stop_ids = form.reading.stop_ids
        self.stop_sequences: tuple[tuple[int, ...], ...] = ()
        """None: a next speaker's line has no fixed ids, and `Reply` ends a reply there."""
        told = f"1 {spec.format} {tokenizer.fingerprint}"
        self.fingerprint = hashlib.sha256(told.encode()).hexdigest()[:16]

    @classmethod
    def load(
        cls,
        spec: ModelSpec,
        directory: Path | None,
        *,
        system_prompt: str = "",
        speaker_names: bool = False,
    ) -> Dialogue:
        """The dialogue of a model whose files are in `directory`; the echo model has none."""
        tokenizer = load_tokenizer(spec, directory)
        return cls(spec, tokenizer, load_format(spec, tokenizer, system_prompt))

    def adapted(self, spec: ModelSpec, system_prompt: str | None) -> Dialogue:
        """The same model's way to talk on other terms, and with a system prompt of its own.

        ModelError where the format does not go with that prompt.
        """
        form = self._format
        if system_prompt is not None:
            form = load_format(spec, self.tokenizer, system_prompt)
        return Dialogue(spec, self.tokenizer, form)

    def reply(self, *, resume: str = "") -> Reply:
        """A reply to be filled; `resume` is what stands of it already."""
        return Reply(self.tokenizer.detokenizer(), self._format.reading, resume)

    def prompt(self, turns: Sequence[Turn], *, low_water: float, resume: str = "") -> Prompt:
        """The prompt for a reply to the last of `turns`, which fits beside the longest reply.

        Where it would not, old turns go until `low_water` of the room is left. With `resume`, the
        prompt ends with what stands of the reply. Raises TurnTooLong where the last turn is over
        the room by itself.
        """
        limit = self.spec.prompt_budget
        room = limit
        for start in range(len(turns)):
            ids = self._encode(turns[start:], resume)
            if len(ids) <= room:
                return Prompt(ids, start, self._counts(turns[start:]))
            room = int(limit * low_water)
        ids = self._encode(turns[-1:], resume)
        if len(ids) > limit:
            raise TurnTooLong(len(ids), limit)
        return Prompt(ids, len(turns) - 1, self._counts(turns[-1:]))

    def _encode(self, turns: Sequence[Turn], resume: str) -> tuple[int, ...]:
        messages = [self._format.message(turn) for turn in turns]
        return tuple(self.tokenizer.encode(self._format.whole(messages, resume)))

    def _counts(self, turns: Sequence[Turn]) -> Mapping[str, int]:
        following = (self._format.following(self._format.message(turn)) for turn in turns)
        counts = [len(self.tokenizer.encode(text)) for text in following]
        return MappingProxyType({turn.id: n for turn, n in zip(turns, counts, strict=True)})
