"""What the dialogue costs: the next prompt of a long conversation, and a token's text.

``henji bench dialogue`` builds conversations of 10, 100 and 1,000 turns and, for each, the prompt
of one exchange more (a reply and a question), again and again: microseconds (the first quartile),
tokens given to the tokenizer, and the microseconds of rendering and encoding the whole. Then the
microseconds that a token takes on its way to shown text. The targets are for a context of 2,048.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from core.dialogue import Dialogue
from core.dialogue.prompt_cache import Encoder
from core.dialogue.tokenizers.base import Tokenizer
from core.models.catalogue import CATALOGUE
from core.types import Turn
from tests import tiny_models

LENGTHS = (10, 100, 1000)
FLAT, PER_TOKEN = 1.2, 10.0
"""The targets: times the cost at 10 turns, and microseconds."""
_WORDS = (
    *("時間管理は、", "それは", "重要です。", "まず、", "目標を設定し、", "進捗を確認します。"),
    *("日本の首都は", "東京です。", "しかし、", "計画を立てる", "ことが", "簡単です。"),
    *("名前はまだ無い。", "明日は", "雨が降るでしょう。", "毎日少しずつ", "実践する"),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """One new exchange in a conversation of `turns` turns."""

    model: str
    context: int
    turns: int
    prompt_tokens: int
    encoded_tokens: float
    microseconds: float
    whole_microseconds: float
    times: float
    """The cost of the same exchange at 10 turns: the median over the rounds."""


def main(argv: Sequence[str]) -> int:
    """Print the tables, and fail where a target is missed."""
    options = _parser().parse_args(argv)
    with TemporaryDirectory() as folder:
        dialogues = dict(_dialogues(Path(folder), options.spiece))
        costs = _costs(dialogues, options.rounds)
        tokens = {name: _per_token(dialogue) for name, dialogue in dialogues.items()}
    _print(costs, tokens)
    if options.json:
        told = {"costs": [asdict(cost) for cost in costs], "microseconds_per_token": tokens}
        options.json.write_text(json.dumps(told, indent=2) + "\n")
    return _judge(costs, tokens)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="henji bench dialogue", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="exchanges that are measured")
    parser.add_argument("--json", type=Path, help="write the numbers into this file")
    parser.add_argument("--spiece", type=Path, help="measure this SentencePiece model, too")
    return parser


def _dialogues(folder: Path, spiece: Path | None) -> Iterator[tuple[str, Dialogue]]:
    yield "rinna", Dialogue.load(CATALOGUE["rinna-ppo"], tiny_models.rinna(folder / "rinna"))
    if spiece is not None:
        (folder / "spiece").mkdir()
        (folder / "spiece" / "spiece.model").write_bytes(spiece.read_bytes())
        yield spiece.name, Dialogue.load(CATALOGUE["rinna-ppo"], folder / "spiece")
    chat = replace(CATALOGUE["smollm2"], context_length=2048, max_new_tokens=128)
    yield "chat template", Dialogue.load(chat, tiny_models.tokenizer_files(folder / "chat"))


class _Counting:
    """A tokenizer that counts the tokens it makes of text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.tokens = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._tokenizer, name)

    def encode(self, text: str) -> list[int]:
        ids = self._tokenizer.encode(text)
        self.tokens += len(ids)
        return ids


# -- prompts ------------------------------------------------------------------------------------


class _Conversation:
    """A conversation of a length, and what the prompts of one exchange more have taken."""

    def __init__(self, name: str, like: Dialogue, context: int, length: int) -> None:
        self._name, self._like, self._context, self._length = name, like, context, length
        spec = replace(like.spec, context_length=context)
        self._dialogue = Dialogue(spec, like.tokenizer, like._format)
        self._counting = _Counting(like.tokenizer)
        self._dialogue._encoder = Encoder(self._counting)  # type: ignore[arg-type]  # passes on
        before = _talk(random.Random(length), "before")
        self._turns = [next(before) for _ in range(length - 1)]
        self._talk = _talk(random.Random(0), "new")  # the same exchanges at every length
        self._last: list[Turn] = []
        self.seconds: list[float] = []
        self._tokens: list[int] = []

    def go_on(self) -> None:
        """One exchange more, measured."""
        for _ in range(2):  # the one before, which is gone on from, and its caches as warm for all
            self._dialogue.prompt(self._turns, low_water=0.7)
        turns = [*self._turns, next(self._talk), next(self._talk)]
        self._counting.tokens = 0
        begun = time.perf_counter()
        prompt = self._dialogue.prompt(turns, low_water=0.7)
        self.seconds.append(time.perf_counter() - begun)
        self._tokens.append(self._counting.tokens)
        self._last = turns[prompt.dropped :]

    def cost(self, shortest: _Conversation) -> Cost:
        pairs = zip(self.seconds, shortest.seconds, strict=True)
        return Cost(
            self._name,
            self._context,
            self._length,
            len(self._dialogue.prompt(self._last, low_water=0.7).ids),
            statistics.median(self._tokens),
            _quiet(self.seconds) * 1e6,
            _whole(self._like, self._last) * 1e6,
            statistics.median(mine / its for mine, its in pairs),
        )


def _quiet(seconds: Sequence[float]) -> float:
    """The first quartile: what a thing takes while nothing else runs on the machine."""
    return statistics.quantiles(seconds, n=4)[0]


def _costs(dialogues: dict[str, Dialogue], rounds: int) -> list[Cost]:
    """Every conversation's cost, their rounds in turn and in any order: all in the same weather,
    and none always behind the one that leaves the processor's caches full."""
    chance = random.Random(0)
    talks = [
        _Conversation(name, dialogue, context, length)
        for name, dialogue in dialogues.items()
        for context in (2048, 1_000_000)
        for length in LENGTHS
    ]
    gc.disable()
    for _ in range(rounds):
        for talk in chance.sample(talks, len(talks)):
            talk.go_on()
    gc.enable()
    count = len(LENGTHS)
    return [talk.cost(talks[place // count * count]) for place, talk in enumerate(talks)]


def _whole(dialogue: Dialogue, turns: Sequence[Turn]) -> float:
    """Seconds to render and encode all of it."""
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        messages = [dialogue._format.message(turn) for turn in turns]
        dialogue.tokenizer.encode(dialogue._format.whole(messages, ""))
        seconds.append(time.perf_counter() - begun)
    return _quiet(seconds)


def _talk(chance: random.Random, name: str) -> Iterator[Turn]:
    """A conversation without end: questions of some 40 characters, replies of some 120."""
    number = 0
    while True:
        for role, words in (("user", 6), ("assistant", 18)):
            text = "".join(chance.choice(_WORDS) for _ in range(words))
            yield Turn(
                f"{name}{number}{role}", "user" if role == "user" else "assistant", "", text, 0.0
            )
        number += 1


# -- tokens -------------------------------------------------------------------------------------


def _per_token(dialogue: Dialogue) -> dict[str, float]:
    """Microseconds a token: the detokenizer alone, and a reply with its guards."""
    words = random.Random(1)
    ids = dialogue.tokenizer.encode("".join(words.choice(_WORDS) for _ in range(120)) + "👍🇯🇵")
    stream: list[float] = []
    reply: list[float] = []
    for _ in range(20):
        stream.append(_time_pushes(dialogue.tokenizer.detokenizer().push, ids))
        reply.append(_time_pushes(dialogue.reply().push, ids))
    return {"detokenizer": min(stream), "reply": min(reply)}


def _time_pushes(push: object, ids: Sequence[int]) -> float:
    assert callable(push)
    begun = time.perf_counter()
    for ident in ids:
        push((ident,))
    return (time.perf_counter() - begun) / len(ids) * 1e6


# -- what is said about it ----------------------------------------------------------------------


def _print(costs: Sequence[Cost], tokens: dict[str, dict[str, float]]) -> None:
    print("model             context  turns  prompt  encoded       µs  whole µs   times")
    for cost in costs:
        print(
            f"{cost.model:<16}{cost.context:>9}{cost.turns:>7}{cost.prompt_tokens:>8}"
            f"{cost.encoded_tokens:>9.0f}{cost.microseconds:>9.0f}{cost.whole_microseconds:>10.0f}"
            f"{cost.times:>8.2f}"
        )
    for name, each in tokens.items():
        print(
            f"{name}: {each['detokenizer']:.2f} µs a token detokenized, {each['reply']:.2f} shown"
        )


def _judge(costs: Sequence[Cost], tokens: dict[str, dict[str, float]]) -> int:
    """0 where every target is reached; else 1, and what was missed on standard error."""
    missed = [
        f"{name}: {each['detokenizer']:.1f} µs a token, over {PER_TOKEN}"
        for name, each in tokens.items()
        if each["detokenizer"] > PER_TOKEN
    ]
    missed += [
        f"{cost.model}: {cost.times:.2f} times the cost at {cost.turns} turns"
        for cost in costs
        if cost.context == 2048 and cost.times > FLAT
    ]
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed else 0
