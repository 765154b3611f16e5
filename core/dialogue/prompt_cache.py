"""Dialogues that are rendered and encoded, and can be extended by the next turns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter, is_
from typing import TypeAlias

from core.dialogue.tokenizers.base import Tokenizer
from core.types import Bounded, Turn

EncodedSegment: TypeAlias = tuple[tuple[int, ...], bool]
"""The ids between two cuts, and whether they are the same in any context."""

_CACHED_SEGMENTS = 4096
"""The number of cached segments."""
_LONGEST_CACHED = 8192
"""Characters of the longest segment that is cached."""


class Encoder:
    """Encodes strings that are cut where the tokenizer allows it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._kept = lru_cache(_CACHED_SEGMENTS)(self._encode)

    def whole(self, text: str) -> tuple[int, ...]:
        """The ids of a rendered string, encoded in one go."""
        return tuple(self._tokenizer.encode(text))

    def segment(self, text: str) -> EncodedSegment:
        """The ids of the text between two cuts."""
        return self._kept(text) if len(text) <= _LONGEST_CACHED else self._encode(text)

    def count(self, text: str) -> int:
        """The tokens of a text by itself."""
        return len(self.segment(text)[0])

    def split(self, text: str) -> tuple[str, str] | None:
        """`text` before and after its first possible cut; None where there is no cut."""
        found = self._tokenizer.cut.search(text) if self._tokenizer.cut else None
        return (text[: found.start()], text[found.start() :]) if found else None

    def _encode(self, text: str) -> EncodedSegment:
        # a text that is never cut is one segment, in its only context
        context_free = self._tokenizer.cut is None or self._tokenizer.is_context_free(text)
        return self.whole(text), context_free


_prompt_fields = attrgetter("id", "role", "text", "name", "thought")
"""The fields of a turn that a prompt depends on."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A rendered message, and the turns in it."""

    turns: tuple[Turn, ...]
    text: str


@dataclass(frozen=True, slots=True)
class CachedDialogue:
    """Consecutive turns, rendered, and encoded up to the last cut."""

    turns: tuple[Turn, ...] = ()
    segments: tuple[Segment, ...] = ()
    ids: tuple[int, ...] = ()
    """The ids before the last cut."""
    unencoded: str = ""
    """The text after it: its ids depend on the text that follows."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Turn id -> tokens, for every segment but the last."""
    context_free: bool = True
    """Whether every segment has the same ids in any context; if not, the whole is encoded."""

    def extend(self, segments: Iterable[Segment], encoder: Encoder) -> CachedDialogue:
        """This dialogue with more segments."""
        last = self.segments[-1] if self.segments else None
        done: list[Segment] = []
        ids: list[int] = []
        counts: dict[str, int] = {}
        unencoded, context_free = self.unencoded, self.context_free
        for segment in segments:
            split, closed = encoder.split(segment.text), None
            if split is None:
                unencoded += segment.text
            else:
                closed, alone_context_free = encoder.segment(unencoded + split[0])
                ids += closed
                unencoded, context_free = split[1], context_free and alone_context_free
            if last is not None:
                divided = split is not None and len(split[0]) <= _MARKER_LENGTH
                counts |= _token_counts(last, closed if divided else None, encoder)
            done.append(segment)
            last = segment
        return CachedDialogue(
            self.turns + tuple(turn for segment in done for turn in segment.turns),
            self.segments + tuple(done),
            self.ids + tuple(ids),
            unencoded,
            {**self.counts, **counts},
            context_free,
        )

    def finish(self, tail: str, encoder: Encoder) -> tuple[tuple[int, ...], Mapping[str, int]]:
        """The ids of the whole prompt, which ends with `tail`, and every turn's tokens."""
        split = encoder.split(tail)
        last, end = (self.unencoded + split[0], split[1]) if split else ("", self.unencoded + tail)
        (ids, context_free), (end_ids, end_context_free) = (
            encoder.segment(last),
            encoder.segment(end),
        )
        closed = ids if split and len(split[0]) <= _MARKER_LENGTH else None
        counts = {**self.counts, **_token_counts(self.segments[-1], closed, encoder)}
        if self.context_free and context_free and end_context_free:
            return self.ids + (ids + end_ids), counts  # copies the longer tuple once
        return encoder.whole("".join(segment.text for segment in self.segments) + tail), counts

    def matches(self, turns: Sequence[Turn]) -> bool:
        """Whether these are its turns. Turns are compared by content, so that an edit is
        noticed."""
        if len(turns) != len(self.turns):
            return False
        return all(map(is_, turns, self.turns)) or (
            list(map(_prompt_fields, turns)) == list(map(_prompt_fields, self.turns))
        )


_MARKER_LENGTH = 4
"""A cut within so many characters of a segment's beginning divides it from the segment before."""


def _token_counts(
    segment: Segment, closed: Sequence[int] | None, encoder: Encoder
) -> dict[str, int]:
    """Turn id -> tokens, for the turns of a segment; `closed` has the ids of the
    segment that ends with it."""
    split = encoder.split(segment.text)
    alone_context_free = closed is None or split is None or len(split[0]) > _MARKER_LENGTH
    tokens = encoder.count(segment.text) if closed is None or alone_context_free else len(closed)
    if len(segment.turns) == 1:
        return {segment.turns[0].id: tokens}
    # joined turns share the tokens by length
    length = sum(len(turn.text) + 1 for turn in segment.turns)
    return {turn.id: max(1, tokens * (len(turn.text) + 1) // length) for turn in segment.turns}


class PromptCache:
    """The newest dialogues, by the id of their last turn."""

    def __init__(self, most: int = 256) -> None:
        self._by_last_turn = Bounded[str, CachedDialogue](most)

    def find(self, turns: Sequence[Turn]) -> tuple[int, CachedDialogue] | None:
        """The dialogue that ends last among these turns, and the index where it begins."""
        for end in range(len(turns), max(0, len(turns) - _MAX_NEW_TURNS), -1):
            dialogue = self._by_last_turn.get(turns[end - 1].id)
            if dialogue is not None:
                start = end - len(dialogue.turns)
                if start >= 0 and dialogue.matches(turns[start:end]):
                    return start, dialogue
        return None

    def put(self, dialogue: CachedDialogue, replaced: CachedDialogue | None) -> None:
        """Keep a dialogue, and drop the shorter one that it extends."""
        if replaced is not None:
            self._by_last_turn.pop(replaced.turns[-1].id, None)
        self._by_last_turn[dialogue.turns[-1].id] = dialogue


_MAX_NEW_TURNS = 64
"""The most new turns that may follow a cached dialogue."""
