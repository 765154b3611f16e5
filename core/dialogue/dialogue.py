"""Turns to token ids that fit the model, and token ids to the text of a reply."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import structlog

from core.dialogue.formats import load_format
from core.dialogue.formats.base import Format, Message, NotAppendable, with_name
from core.dialogue.prompt_cache import CachedDialogue, Encoder, PromptCache, Segment
from core.dialogue.reply import Reply
from core.dialogue.tokenizers import check_vocabulary, load_tokenizer
from core.dialogue.tokenizers.base import Tokenizer
from core.errors import ModelError, TurnTooLong
from core.models.catalogue import ModelSpec
from core.place_rules import NO_RULES, Rules
from core.queue_types import PromptRoom
from core.types import Bounded, Role, Turn

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt for the engine, and its token counts for the store."""

    ids: tuple[int, ...]
    dropped: int
    """The number of oldest turns that were left out."""
    counts: Mapping[str, int]
    """Turn id -> the tokens of that turn, for every turn of this prompt."""


_BuiltPrompt: TypeAlias = tuple[tuple[int, ...], Mapping[str, int], CachedDialogue | None]
"""A prompt's ids, the tokens of its turns, and the cached dialogue to extend."""


class Dialogue:
    """The dialogue of one model: its format and its tokenizer.

    A prompt's ids are always those of its whole rendered string. Where the format only appends and
    the tokenizer allows a cut, a prompt extends the one before it, and only the new turns are
    rendered and encoded.
    """

    def __init__(
        self,
        spec: ModelSpec,
        tokenizer: Tokenizer,
        format_: Format,
        *,
        speaker_names: bool = False,
        system_prompt: str = "",
    ) -> None:
        """`system_prompt` is that of the format."""
        spec = replace(spec, max_thinking_tokens=_thinking_tokens(spec, format_))
        self.spec = spec
        self.tokenizer = tokenizer
        self.stop_ids = format_.reply_syntax.stop_ids
        self.end = format_.reply_syntax.end
        """The end token."""
        self.stop_sequences: tuple[tuple[int, ...], ...] = ()
        """Empty: the next speaker's line has no fixed ids, so `Reply` ends the reply there."""
        self._format = format_
        self.writes_names = speaker_names
        """Whether people's names are in the prompts."""
        self.system_prompt = system_prompt
        """The setting; a template may write a default one if it is empty."""
        self._encoder = Encoder(tokenizer)
        self._cache = PromptCache()
        self._token_count = lru_cache(4096)(self._count_tokens)
        self._empty = len(self._encoder.whole(format_.whole([Message("user", "")], "")))
        if self._empty >= spec.prompt_budget:
            raise ModelError(
                f"the system prompt takes {self._empty} tokens with the format around it, "
                f"and {spec.name} reads {spec.prompt_budget} beside the longest reply"
            )
        named = f"1 {spec.format} {speaker_names} {tokenizer.fingerprint}"
        self.fingerprint = hashlib.sha256(named.encode()).hexdigest()[:16]

    @classmethod
    def load(
        cls,
        spec: ModelSpec,
        directory: Path | None,
        *,
        system_prompt: str = "",
        speaker_names: bool = False,
    ) -> Dialogue:
        """The dialogue of a model whose files are in `directory`; the echo model has none.

        ModelError, one sentence, if the files are broken or do not fit together.
        """
        tokenizer = load_tokenizer(spec, directory)
        # with a remote engine, only the tokenizer is on this machine
        if directory is not None and (directory / "config.json").exists():
            check_vocabulary(tokenizer, spec, directory)
        format_ = load_format(spec, tokenizer, system_prompt)
        return cls(
            spec, tokenizer, format_, speaker_names=speaker_names, system_prompt=system_prompt
        )

    @property
    def longest_reply(self) -> int:
        """Tokens of the longest reply, with the longest thought before it."""
        return self.spec.max_new_tokens + (self.spec.max_thinking_tokens or 0)

    @property
    def counts_tokens(self) -> bool:
        """Whether ids are the model's tokens, not the characters for a server that makes the prompt
        itself."""
        return self.spec.format != "messages"

    @property
    def ignores_thinking(self) -> bool:
        """Whether the model's template has no switch for the setting `thinking`."""
        return self.spec.thinking != "default" and not self._format.thinking_switch

    def encode_text(self, text: str) -> list[int]:
        """The ids of a text in a user's turn, without the turn's markers."""
        message = self._format.message(Turn("", "user", "", text, 0.0))
        return self.tokenizer.encode(message.text)

    def encode_reply(self, text: str) -> tuple[int, ...]:
        """The ids of a whole reply as the model would write them after a prompt, with its end.

        No piece spans the prompt and the reply, as in generation.
        """
        message = self._format.message(Turn("", "assistant", "", text, 0.0))
        lead = self._lead
        ids = self.tokenizer.encode(lead + message.text)[len(self.tokenizer.encode(lead)) :]
        return tuple(ids) if self.end is None else (*ids, self.end)

    @cached_property
    def _lead(self) -> str:
        """The text before a reply when it is encoded: a line end if the tokenizer would add a space
        at the beginning of a text, or else nothing."""
        detokenizer = self.tokenizer.detokenizer(inside=True)
        alone = detokenizer.push(self.tokenizer.encode("a")) + detokenizer.finish()
        return "" if alone == "a" else "\n"

    def with_spec(self, spec: ModelSpec, system_prompt: str | None) -> Dialogue:
        """The same dialogue with another sampling, reply length, system prompt or thinking.

        ModelError if the format cannot take that prompt, or the prompt leaves no room.
        """
        format_, wanted = self._format, self.system_prompt
        if system_prompt is not None or spec.thinking != self.spec.thinking:
            wanted = wanted if system_prompt is None else system_prompt
            format_ = load_format(spec, self.tokenizer, wanted)
        names = self.writes_names
        return Dialogue(spec, self.tokenizer, format_, speaker_names=names, system_prompt=wanted)

    def reply(self, *, resume: str = "", thought: str = "") -> Reply:
        """A new reply; `resume` is its text so far, or `thought` its unfinished thought."""
        detokenizer = self.tokenizer.detokenizer(inside=True)  # it follows the prompt
        spec = self.spec
        return Reply(
            detokenizer,
            self._format.reply_syntax,
            resume,
            thought,
            loop_guard=spec.loop_guard,
            most=(spec.max_new_tokens, spec.max_thinking_tokens or 0),
        )

    @property
    def keeps_thoughts(self) -> bool:
        """Whether the model's template writes the thoughts of earlier replies into the prompt."""
        return self._format.keeps_thoughts

    def prompt(
        self, turns: Sequence[Turn], *, low_water: float, resume: str = "", thought: str = ""
    ) -> Prompt:
        """The prompt for a reply to the last of `turns`; it fits beside the longest reply.

        If not all turns fit, it is cut down to `low_water` of the budget, so that the next prompts
        begin with the same turn. With `resume` or `thought`, it ends with the reply so far.
        TurnTooLong if the last turn alone is over the budget.
        """
        if not turns:
            raise ValueError("a prompt needs a turn to answer")
        if (tokens := self._fewest_tokens(turns[-1].text)) > self.spec.prompt_budget:
            raise TurnTooLong(tokens, self.spec.prompt_budget)
        if self._format.refresh():
            self._cache = PromptCache()
        known = self._find_cached(turns, resume or thought)
        start, cached = known or (self._first_start(turns, low_water, resume or thought), None)
        while True:
            ids, counts, extended = self._build(turns, start, cached, (resume, thought))
            if len(ids) <= self.spec.prompt_budget:
                break
            room = low_water, resume or thought
            start, cached = self._later_start(turns, start, len(ids), *room), None
        if extended:
            self._cache.put(extended, known[1] if known else None)
        return Prompt(ids, start, MappingProxyType(counts))

    def count(self, turn: Turn) -> int:
        """The tokens of a turn between two others, however long it is."""
        return len(self._encoder.whole(self._format.following(self._message([turn]))))

    def prompt_room(self, low_water: float) -> PromptRoom:
        """The room for turns in a prompt."""
        room = self.spec.prompt_budget - self._empty
        low, first = self._low_budget(low_water, ""), self._format.user_first
        return PromptRoom(room, low, self.fingerprint, first)

    def fits(self, turn: Turn, low_water: float) -> bool:
        """Whether a turn takes no more than `low_water` of the budget, or half of the room."""
        room = self.spec.prompt_budget - self._empty
        most = max(self._low_budget(low_water, ""), room // 2)
        return self._count_tokens(turn.role, turn.text, turn.name, turn.thought) <= most

    # -- from turns to ids ------------------------------------------------------------------------

    def _build(
        self,
        turns: Sequence[Turn],
        start: int,
        cached: CachedDialogue | None,
        so_far: tuple[str, str],
    ) -> _BuiltPrompt:
        """The prompt of the turns from `start` on, of which `cached` has the first.

        It ends with the text or the thought of the reply `so_far`.
        """
        if self._format.append_only:
            with suppress(NotAppendable):
                return self._append(turns, start, cached or CachedDialogue(), so_far)
        groups = list(self._groups(turns[start:]))
        rendered = self._format.whole(list(map(self._message, groups)), *so_far)
        counts = {turn.id: self._tokens_of(turn) for turn in turns[start:]}
        return self._encoder.whole(rendered), counts, None

    def _append(
        self, turns: Sequence[Turn], start: int, cached: CachedDialogue, so_far: tuple[str, str]
    ) -> _BuiltPrompt:
        segments = self._segments(turns[start + len(cached.turns) :], first=not cached.turns)
        extended = cached.extend(segments, self._encoder)
        ids, counts = extended.finish(self._format.tail(*so_far), self._encoder)
        return ids, counts, extended

    def _find_cached(self, turns: Sequence[Turn], resume: str) -> tuple[int, CachedDialogue] | None:
        """A cached dialogue that these turns continue, and the index where it begins.

        None if it leaves out turns for which there is room: they may have come after it.
        """
        found = self._cache.find(turns)
        if found is None:
            return None
        start, cached = found
        if start > self._valid_start(turns, 0) and self._may_all_fit(turns, resume):
            return None
        if not self._format.alternates:
            return found
        new = turns[start + len(cached.turns) :]
        # a turn of the same role would be joined to the last message
        return None if new and new[0].role == cached.turns[-1].role else found

    def _segments(self, turns: Sequence[Turn], *, first: bool) -> Iterator[Segment]:
        for group in self._groups(turns):
            message = self._message(group)
            render = self._format.first if first else self._format.following
            first = False
            yield Segment(group, render(message))

    def _groups(self, turns: Sequence[Turn]) -> Iterator[tuple[Turn, ...]]:
        """The turns that become one message."""
        if self._format.alternates:
            return (tuple(group) for _, group in groupby(turns, attrgetter("role")))
        return ((turn,) for turn in turns)

    def _message(self, group: Sequence[Turn]) -> Message:
        if self.writes_names:
            group = [with_name(turn, self.tokenizer.normalized) for turn in group]
        messages = list(map(self._format.message, group))
        thoughts = "\n".join(message.thought for message in messages if message.thought)
        text = "\n".join(message.text for message in messages)
        return Message(messages[0].role, text, thoughts)

    # -- what fits ---------------------------------------------------------------------------------

    def _first_start(self, turns: Sequence[Turn], low_water: float, resume: str) -> int:
        """The first turn of a new prompt: the oldest, if all turns may fit."""
        if self._may_all_fit(turns, resume):
            return self._valid_start(turns, 0)
        return self._valid_start(
            turns, self._oldest_that_fits(turns, self._low_budget(low_water, resume))
        )

    def _may_all_fit(self, turns: Sequence[Turn], resume: str) -> bool:
        room = self.spec.prompt_budget - self._overhead(resume)
        # a turn among others takes up to a token less than alone
        return self._oldest_that_fits(turns, room, joined=1) == 0

    def _later_start(
        self, turns: Sequence[Turn], start: int, tokens: int, low_water: float, resume: str
    ) -> int:
        """The first turn to use instead of `start`, whose prompt took too many `tokens`."""
        if start >= len(turns) - 1:
            raise TurnTooLong(tokens, self.spec.prompt_budget)
        oldest = self._oldest_that_fits(turns, self._low_budget(low_water, resume))
        return self._valid_start(turns, max(start + 1, oldest))

    def _low_budget(self, low_water: float, resume: str) -> int:
        return int(self.spec.prompt_budget * low_water) - self._overhead(resume)

    def _oldest_that_fits(self, turns: Sequence[Turn], room: int, *, joined: int = 0) -> int:
        """The oldest turn that fits into `room` tokens with all after it; no others are counted."""
        counts = (self._tokens_of(turn) - joined for turn in reversed(turns))
        return oldest_that_fits(counts, len(turns), room)

    def _valid_start(self, turns: Sequence[Turn], start: int) -> int:
        """`start`, or the next user's turn where the format needs one first."""
        if not self._format.user_first:
            return start
        users = (p for p in range(start, len(turns)) if turns[p].role == "user")
        return next(users, len(turns) - 1)

    def _overhead(self, resume: str) -> int:
        """The tokens of a prompt without its turns."""
        return self._empty + (self._encoder.count(resume) if resume else 0)

    def _tokens_of(self, turn: Turn) -> int:
        thought = turn.thought if self.keeps_thoughts else ""
        return self._token_count(turn.role, turn.text, turn.name, thought)

    def _fewest_tokens(self, text: str) -> int:
        """A cheap lower bound: no token has more characters than the longest piece."""
        return len(text) // self.tokenizer.longest

    def _count_tokens(self, role: Role, text: str, name: str, thought: str) -> int:
        """The tokens of one turn between two others; a lower bound if it cannot fit anyway."""
        if (tokens := self._fewest_tokens(text)) > self.spec.prompt_budget:
            return tokens
        message = self._message([Turn("", role, "", text, 0.0, name, thought=thought)])
        try:
            return len(self._encoder.whole(self._format.following(message)))
        except NotAppendable:
            return len(self._encoder.whole(message.thought + message.text))


def oldest_that_fits(counts: Iterable[int | None], number: int, room: int) -> int:
    """The index of the oldest turn that certainly fits into `room` tokens with all later turns; at
    least the newest. `counts`: from the newest turn on; None: unknown."""
    for at, count in zip(reversed(range(number)), counts, strict=True):
        room -= count or 0
        if room < 0 or count is None:
            return min(at + 1, number - 1)
    return 0


LONGEST_THOUGHT = 4096
"""The default, in tokens, if the context is long enough."""


def _thinking_tokens(spec: ModelSpec, format_: Format) -> int:
    """The tokens of the longest thought; 0 for a model that writes none."""
    if format_.reply_syntax.thoughts is None:
        return 0
    default = min(LONGEST_THOUGHT, spec.context_length // 4)
    return default if spec.max_thinking_tokens is None else spec.max_thinking_tokens


MAX_DIALOGUES = 64
"""The most dialogues that are kept; the least recently used is dropped first."""

SHORT_TURN = Turn("", "user", "", "こんにちは、お元気ですか?" * 4, 0.0)
"""A turn that must fit beside a place's system prompt."""

_Key: TypeAlias = tuple[ModelSpec, str | None]


class PlaceDialogues:
    """The model's default dialogue, and its variants by sampling, reply length, system prompt."""

    def __init__(self, default: Dialogue) -> None:
        self.default = default
        self._by_rules = Bounded[_Key, Dialogue](MAX_DIALOGUES)

    def of(self, rules: Rules) -> Dialogue:
        """The dialogue for these rules."""
        if found := self.created(rules):
            return found
        key = self._key(rules)
        self._by_rules[key] = self._create(*key)
        return self._by_rules[key]

    def created(self, rules: Rules) -> Dialogue | None:
        """The same, unless it is still to be created, which takes some 20 ms."""
        key = self._key(rules)
        if key == (self.default.spec, None):
            return self.default
        if key in self._by_rules:
            self._by_rules.move_to_end(key)
        return self._by_rules.get(key)

    def _key(self, rules: Rules) -> _Key:
        if rules == NO_RULES:
            return self.default.spec, None
        return spec_with_rules(self.default.spec, rules), rules.system_prompt

    def _create(self, spec: ModelSpec, system_prompt: str | None) -> Dialogue:
        try:
            dialogue = self.default.with_spec(spec, system_prompt)
            if system_prompt is not None:
                dialogue.prompt([SHORT_TURN], low_water=1.0)
        except (ModelError, TurnTooLong) as error:
            log.warning("a place's system prompt does not go with the model", error=str(error))
            return self.default.with_spec(spec, None)
        if dialogue.ignores_thinking:
            log.warning(
                "the model's chat template has no switch for thinking", wanted=spec.thinking
            )
        return dialogue


def spec_with_rules(spec: ModelSpec, rules: Rules) -> ModelSpec:
    """The spec for these rules. They allow a reply of at most half the context, and a thought of at
    most a quarter; the model's settings may allow more."""
    length, thought = spec.context_length, spec.max_thinking_tokens or 0
    wanted = rules.max_new_tokens or spec.max_new_tokens
    thinking = rules.max_thinking_tokens or thought
    return replace(
        spec,
        sampling=rules.sampling(spec.sampling),
        max_new_tokens=min(wanted, max(spec.max_new_tokens, length // 2)),
        max_thinking_tokens=min(thinking, max(thought, length // 4)),
        thinking=spec.thinking if rules.thinking in (None, "default") else rules.thinking,
    )
