"""A dialogue as far as it is rendered and encoded, to which the next turns are added."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter, is_

from core.bounded import Bounded
from core.dialogue.encoder import Encoder
from core.types import Turn

_facts = attrgetter("id", "role", "text", "name")
"""All of a turn that a prompt depends on."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A message as it stands in a rendered string, and the turns that it is made of."""

    turns: tuple[Turn, ...]
    text: str


@dataclass(frozen=True, slots=True)
class CachedDialogue:
    """Some turns in a row, rendered and encoded up to the last place where they may be cut."""

    turns: tuple[Turn, ...] = ()
    parts: tuple[Segment, ...] = ()
    ids: tuple[int, ...] = ()
    """Of what stands before the last cut."""
    rest: str = ""
    """What stands after it: its ids depend on what comes next."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Turn id -> tokens, for every part but the last."""
    settled: bool = True
    """Whether every segment has its ids wherever it stands; if not, the whole is encoded."""

    def extended(self, parts: Iterable[Segment], encoder: Encoder) -> CachedDialogue:
        """This and more parts."""
        last = self.parts[-1] if self.parts else None
        done: list[Segment] = []
        ids: list[int] = []
        counts: dict[str, int] = {}
        rest, settled = self.rest, self.settled
        for part in parts:
            sides, segment = encoder.split(part.text), None
            if sides is None:
                rest += part.text
            else:
                segment, alone = encoder.segment(rest + sides[0])
                ids += segment
                rest, settled = sides[1], settled and alone
            if last is not None:
                divided = sides is not None and len(sides[0]) <= _FRONT
                counts |= _counted(last, segment if divided else None, encoder)
            done.append(part)
            last = part
        return CachedDialogue(
            self.turns + tuple(turn for part in done for turn in part.turns),
            self.parts + tuple(done),
            self.ids + tuple(ids),
            rest,
            {**self.counts, **counts},
            settled,
        )

    def ended(self, tail: str, encoder: Encoder) -> tuple[tuple[int, ...], Mapping[str, int]]:
        """The ids of the whole prompt, which ends with `tail`, and every turn's tokens."""
        sides = encoder.split(tail)
        last, end = (self.rest + sides[0], sides[1]) if sides else ("", self.rest + tail)
        (ids, settled), (end_ids, end_settled) = encoder.segment(last), encoder.segment(end)
        closed = ids if sides and len(sides[0]) <= _FRONT else None
        counts = {**self.counts, **_counted(self.parts[-1], closed, encoder)}
        if self.settled and settled and end_settled:
            return self.ids + (ids + end_ids), counts  # the long one is copied once
        return encoder.whole("".join(part.text for part in self.parts) + tail), counts

    def matches(self, turns: Sequence[Turn]) -> bool:
        """Whether this is a trail of `turns`. Turns that were read anew are compared by what is in
        them, so that an edited one is noticed."""
        if len(turns) != len(self.turns):
            return False
        return all(map(is_, turns, self.turns)) or (
            list(map(_facts, turns)) == list(map(_facts, self.turns))
        )


_FRONT = 4
"""A cut among so many characters at the beginning of a part is the one that divides it from the
part before."""


def _counted(part: Segment, closed: Sequence[int] | None, encoder: Encoder) -> dict[str, int]:
    """Turn id -> tokens, for the turns of a part; `closed` is the segment that ends with it."""
    sides = encoder.split(part.text)
    alone = closed is None or sides is None or len(sides[0]) > _FRONT
    tokens = encoder.count(part.text) if closed is None or alone else len(closed)
    if len(part.turns) == 1:
        return {part.turns[0].id: tokens}
    # turns that were joined share their tokens by length
    length = sum(len(turn.text) + 1 for turn in part.turns)
    return {turn.id: max(1, tokens * (len(turn.text) + 1) // length) for turn in part.turns}


class PromptCache:
    """The trails of the dialogues that were answered last, found by their last turn's id."""

    def __init__(self, most: int = 256) -> None:
        self._by_last_turn = Bounded[str, CachedDialogue](most)

    def find(self, turns: Sequence[Turn]) -> tuple[int, CachedDialogue] | None:
        """The trail that ends last among these turns, and where in them it begins."""
        for end in range(len(turns), max(0, len(turns) - _NEW), -1):
            trail = self._by_last_turn.get(turns[end - 1].id)
            if trail is not None:
                start = end - len(trail.turns)
                if start >= 0 and trail.matches(turns[start:end]):
                    return start, trail
        return None

    def put(self, trail: CachedDialogue, instead: CachedDialogue | None) -> None:
        """Keep a trail; the shorter one that it grew out of is not wanted any more."""
        if instead is not None:
            self._by_last_turn.pop(instead.turns[-1].id, None)
        self._by_last_turn[trail.turns[-1].id] = trail


_NEW = 64
"""How many turns may have been added since the last prompt for its trail to be found."""
