"""The whole circle on one machine, with the embedded model: `make learn`.

python -m tests.learn FOLDER

Simulated people with a hidden taste vote on duels in a local channel, `henji admin preferences`
makes the votes a data set, `henji align` makes an adapter, a core serves it, and held-out prompts
tell what has changed. The taste is a rule that anybody can check (short words), and a rule is
easily gamed: so the table never stands alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from transformers import PreTrainedModel

from bots.actions import Actions, Actor
from bots.platform import Incoming
from bots.relay import Relay
from bots.services import open_relay, open_stores
from core.alignment.datasets import Encoded
from core.alignment.losses import Batch, token_log_probs
from core.alignment.ppo_training import ON_POLICY, RolloutRequest, generate_replies
from core.dialogue import Dialogue
from core.errors import StoreUnavailable
from core.evaluation.judges import RULES, better
from core.evaluation.prompts import Prompt
from core.evaluation.run_record import Record
from core.evaluation.statistics import Side, count
from core.evaluation.statistics import Verdict as Judgement
from core.models.catalogue import CATALOGUE, model_directory
from core.models.manifest import sha256
from core.models.weights import load_weights
from core.queue_types import Place
from core.settings import Settings
from core.types import Done, Duel, Sampling, ThreadKey, Turn, Verdict
from tests.simulated_platform import Board, SimulatedPlatform
from tests.waiting import until

MODEL = CATALOGUE["smollm2"]
CHANNEL = Place("console", "learn", "people")
"""On the platform that needs no leave to collect."""
TASTE = RULES["short-words"]
REPLY = 40
"""Tokens of an answer, at most: a processor's time is short."""
SLIP = 0.1
"""How often a person presses the wrong button."""
PEOPLE = 3
RULES_THERE: dict[str, object] = {
    "duel": "smollm2:1", "duel_votes": PEOPLE, "collect": True, "temperature": 1.0, "top_p": 0.95,
    "max_new_tokens": REPLY,
}  # fmt: skip
"""Two samples of one model, chosen more loosely than usual, for every question in the channel."""
CANDIDATES = ((10, 3e-3), (10, 1.5e-3))
"""Steps and rates to choose from."""
MOST_KL = 10.0
"""Nats a reply: a candidate that has moved further from the base is not chosen, whatever its score.
One that repeats itself wins by a rule, and the base finds it likely; KL alone tells."""

TOPICS = (
    *("rain", "bread", "the moon", "a bicycle", "the sea", "music", "a garden", "winter"),
    *("a bridge", "tea", "a dream", "the library", "a river", "sleep", "a market", "the wind"),
    *("a kite", "history", "a train", "friendship", "a mountain", "honey", "a clock", "salt"),
    *("a candle", "glass", "the forest", "a letter", "coffee", "an island", "paper", "a festival"),
)
QUESTIONS = (
    "What is so good about {}?",
    "Tell me something about {}.",
    "How would you explain {} to a friend?",
)
TRAINING, DEV = 18, 22
"""Topics up to these places are for training, and for choosing; the rest is the test."""


def questions(start: int, end: int) -> list[Prompt]:
    texts = [form.format(topic) for topic in TOPICS[start:end] for form in QUESTIONS]
    return [Prompt(text, (Turn("1", "user", "", text, 0.0),)) for text in texts]


@dataclass(frozen=True, slots=True)
class WrittenReply:
    """One answer, as ids and as text."""

    ids: Encoded
    text: str


class Workshop:
    """A folder, the embedded model in it, and a clock."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        rules = (f"{name} = {json.dumps(value)}\n" for name, value in RULES_THERE.items())
        (folder / "henji.toml").write_text(f'[channels."{CHANNEL}"]\n{"".join(rules)}')
        self.folder, self._begun = folder, time.monotonic()
        channels: Any = {str(CHANNEL): RULES_THERE}
        self.settings = Settings(
            data_dir=folder / "data", dtype="float32", device="cpu", channels=channels
        )
        self.files = model_directory(MODEL, self.settings, self.tell)
        self.dialogue = Dialogue.load(MODEL, self.files)

    def tell(self, line: str) -> None:
        """Say a line, with the seconds that have gone by and those of computing."""
        times = os.times()
        computed = times.user + times.system + times.children_user + times.children_system
        gone = time.monotonic() - self._begun
        print(f"[{gone:4.0f} s, {computed:4.0f} s computed] {line}", flush=True)

    def model(self, adapter: Path | None) -> PreTrainedModel:
        spec = replace(MODEL, adapter=str(adapter) if adapter else None)
        return load_weights(
            spec, self.files, dtype="float32", device="cpu", progress=lambda line: None
        )

    def answers(
        self, prompts: Sequence[Prompt], sampling: Sampling, seed: int, adapter: Path | None = None
    ) -> list[WrittenReply]:
        """An answer to each prompt, by our own engine."""
        ids = [self.dialogue.prompt(prompt.turns, low_water=1.0).ids for prompt in prompts]
        stop_ids, end = self.dialogue.stop_ids, self.dialogue.end
        wanted = RolloutRequest(ids, REPLY, stop_ids, end, seed, sampling)
        return [
            WrittenReply(one, self._read(one))
            for one in generate_replies(self.model(adapter), wanted)
        ]

    def _read(self, written: Encoded) -> str:
        reply = self.dialogue.reply()
        reply.push([ident for ident in written.reply if ident != self.dialogue.end])
        return reply.finish("stop")[0]

    @property
    def environment(self) -> dict[str, str]:
        """That of a henji command."""
        told = {
            "HENJI_CONFIG": str(self.folder / "henji.toml"),
            "HENJI_DATA_DIR": str(self.folder / "data"),
            "HENJI_DTYPE": "float32",
        }
        return {**os.environ, **told}

    @contextmanager
    def serving(self, model: str) -> Iterator[None]:
        """A core that answers, in a process of its own."""
        environment = {**self.environment, "HENJI_MODEL": model, "HENJI_LOG_LEVEL": "warning"}
        words = [sys.executable, "-m", "bots", "core"]
        with subprocess.Popen(words, env=environment) as core:
            try:
                yield
            finally:
                core.terminate()

    def henji(self, *words: str, show: Callable[[str], bool], **environment: str) -> str:
        """Run a henji command; its lines that `show` wants are shown as they come."""
        with subprocess.Popen(
            [sys.executable, "-m", "bots", *words],
            env={**self.environment, **environment},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            lines = []
            for line in process.stdout or ():
                lines.append(line)
                if show(line):
                    self.tell(f"  {line.rstrip()}")
        if process.returncode:
            sys.exit("".join(lines))
        return "".join(lines)


# -- the circle ------------------------------------------------------------------------------------


def duels(shop: Workshop) -> Path:
    """People ask in a channel, get two answers, and vote by their taste; a data set of that."""
    prompts, path = questions(0, TRAINING), shop.folder / "votes.jsonl"
    with shop.serving("smollm2"):
        asyncio.run(voted(shop, prompts))
    words = ("admin", "preferences", str(CHANNEL), "--as", "dpo", "--out", str(path))
    shop.henji(*words, "--held-out", "0", show=bool)
    shop.tell(f"{len(prompts)} duels, {PEOPLE} people each")
    return path


async def voted(shop: Workshop, prompts: Sequence[Prompt]) -> None:
    """Ask everything in the channel, and vote on each pair of answers."""
    chance, board = random.Random(1), Board()
    platform = SimulatedPlatform(board, CHANNEL.platform, part_length=2000)
    async with (
        open_stores(shop.settings) as stores,
        open_relay(shop.settings, stores, platform, "en") as relay,
    ):
        actions = Actions(relay, stores)

        async def is_served() -> bool:
            try:
                return await stores.queue.cores(shop.settings.job_lane) > 0
            except StoreUnavailable:  # the machine is busy with loading
                return False

        await until(is_served, seconds=300.0)
        asked = {prompt.id: await ask(relay, prompt) for prompt in prompts}
        for prompt in prompts:
            thread, job = asked[prompt.id]
            duel = await shown(board, job)
            for person in range(PEOPLE):
                verdict = vote(prompt, duel, chance)
                outcome = await actions.vote(Actor(f"U{person}"), thread, job, verdict)
                assert outcome.done, outcome.key
        for _, job in asked.values():
            await shown(board, job, told=True)


async def ask(relay: Relay, prompt: Prompt) -> tuple[ThreadKey, str]:
    """The thread of a question, and the id of its reply."""
    ident = sha256(prompt.id)[:16]
    thread = replace(CHANNEL.any_thread, thread=ident)
    turn = Turn(ident, "user", "U0", prompt.text, time.time())
    receipt = await relay.submit(Incoming(thread, turn, addressed=True, can_vote=True))
    assert receipt.job, receipt
    return thread, receipt.job


async def shown(board: Board, job: str, *, told: bool = False) -> Duel:
    """The two answers, once they are on the board; `told`: with their models."""

    def duel() -> Duel | None:
        parts = [message.part for message in board.messages.values() if message.job == job]
        ends = [part.end for part in parts if isinstance(part.end, Done)]
        found = next((end.duel for end in ends), None)
        return found if found and (found.models or not told) else None

    async def there() -> bool:
        return duel() is not None

    await until(there, seconds=600.0)
    found = duel()
    assert found is not None
    return found


def vote(prompt: Prompt, duel: Duel, chance: random.Random) -> Verdict:
    """What a person says, who slips now and then."""
    winner = better((TASTE(prompt, duel.a), TASTE(prompt, duel.b)))
    if winner not in ("a", "b"):
        return "tie"
    return "a" if (winner == "a") != (chance.random() < SLIP) else "b"


def trained(shop: Workshop, votes: Path, steps: int, rate: float) -> Path:
    out = shop.folder / f"adapter-{rate:g}"
    shop.tell(f"henji align: {steps} steps of 4 pairs at a rate of {rate:g}")
    words = ("align", "smollm2", "--data", str(votes), "--method", "dpo", "--out", str(out))
    more = ("--steps", str(steps), "--rate", str(rate), "--batch", "4", "--layers", "12")
    shop.henji(*words, *more, "--held-out", "0", show=lambda line: line.startswith("step"))
    return out


# -- the changes -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """An adapter's answers beside the base's, to the same prompts with the same seeds."""

    prompts: Sequence[Prompt]
    before: Sequence[WrittenReply]
    after: Sequence[WrittenReply]
    kl: float
    """Nats a reply, of replies that the new model samples freely."""
    likely: tuple[float, float]
    """Nats a token under the base: of its own answers, and of the new ones."""

    def verdicts(self) -> list[Judgement]:
        """Of the new model (a) against the base (b)."""
        return [
            Judgement(p.id, better((TASTE(p, new.text), TASTE(p, old.text))), None)
            for p, old, new in zip(self.prompts, self.before, self.after, strict=True)
        ]


def looked_at(
    shop: Workshop,
    prompts: Sequence[Prompt],
    said: tuple[Sequence[WrittenReply], Sequence[WrittenReply]],
    adapter: Path,
) -> Change:
    """`said`: the base's answers and the new model's."""
    before, after = said
    # a distance between distributions needs replies that only the model has shaped
    free = shop.answers(prompts, ON_POLICY, 9, adapter)
    base, new = shop.model(None), shop.model(adapter)
    kl = float((log_probs(new, free) - log_probs(base, free)).sum()) / len(free)
    likely = (float(log_probs(base, before).mean()), float(log_probs(base, after).mean()))
    return Change(prompts, before, after, kl, likely)


@torch.no_grad()
def log_probs(model: PreTrainedModel, said: Sequence[WrittenReply]) -> torch.Tensor:
    """Of each reply's tokens, one after another."""
    found = []
    for start in range(0, len(said), 8):
        batch = Batch.of([one.ids for one in said[start : start + 8]], torch.device("cpu"))
        found.append(token_log_probs(model, batch)[batch.mask])
    return torch.cat(found)


def show(change: Change) -> None:
    """What must stand beside the table."""
    answers = list(zip(change.prompts, change.before, change.after, strict=True))
    rows = (
        ("letters a word", [(-TASTE(p, old.text), -TASTE(p, new.text)) for p, old, new in answers]),
        ("different words, share", [(variety(old), variety(new)) for _, old, new in answers]),
        ("characters", [(len(old.text), len(new.text)) for _, old, new in answers]),
        ("ended by itself, share", [(ended(old), ended(new)) for _, old, new in answers]),
    )
    print("\nbeside the table, on average    before    after")
    for name, values in rows:
        before, after = (fmean(column) for column in zip(*values, strict=True))
        print(f"{name:28} {before:9.2f} {after:8.2f}")
    print(f"{'nats a token, under the base':28} {change.likely[0]:9.2f} {change.likely[1]:8.2f}")
    print(f"{'KL to the base, nats a reply':28} {'':9} {change.kl:8.1f}")
    for prompt, old, new in answers[::9]:
        print(f"\n{prompt.text}\n  before: {old.text!r}\n  after:  {new.text!r}")
    print(
        "\nA win here means shorter words, and nothing else: the people are simulated, and their"
        "\ntaste is a rule. Whether the answers are better is for the samples to say."
    )


def ended(said: WrittenReply) -> bool:
    return len(said.ids.reply) < REPLY


def variety(said: WrittenReply) -> float:
    words = said.text.lower().split()
    return len(set(words)) / max(1, len(words))


def chosen(shop: Workshop, votes: Path) -> Path:
    """The adapter that does best on the dev prompts, of those that are still near the base."""
    prompts = questions(TRAINING, DEV)
    before = shop.answers(prompts, MODEL.sampling, 7)
    found: dict[float, Path] = {}
    for steps, rate in CANDIDATES:
        adapter = trained(shop, votes, steps, rate)
        after = shop.answers(prompts, MODEL.sampling, 7, adapter)
        change = looked_at(shop, prompts, (before, after), adapter)
        score = count(change.verdicts(), both_orders=False).whole.score
        value, fall = score.value if score else 0.0, change.likely[0] - change.likely[1]
        shop.tell(f"on the dev prompts: score {value:.2f}, KL {change.kl:.1f}, fall {fall:.2f}")
        if change.kl <= MOST_KL:
            found[value] = adapter
    if not found:
        sys.exit("every candidate has moved too far from the base: none is served")
    return found[max(found)]


def compared(
    shop: Workshop, prompts: Sequence[Prompt]
) -> tuple[list[WrittenReply], list[WrittenReply]]:
    """`henji compare`: the base's answers and the new model's, which it has printed a table of."""
    asked, out = shop.folder / "test.jsonl", shop.folder / "compared"
    rows = ({"id": prompt.id, "prompt": prompt.text} for prompt in prompts)
    asked.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("compare", "after", "before", "--prompts", str(asked), "--out", str(out))
    told = shop.henji(*words, "--judge", "rule:short-words", show=lambda line: False)
    print(told[told.index("after against before") :])
    record = Record.read(out)
    sides: dict[Side, list[WrittenReply]] = {"a": [], "b": []}
    for side, said in sides.items():
        for prompt in prompts:
            answer = record.answers[prompt.id, side]
            ids = shop.dialogue.encode_reply(answer.text)
            whole = ids if answer.ending == "stop" else ids[:-1]
            start = shop.dialogue.prompt(prompt.turns, low_water=1.0).ids
            said.append(WrittenReply(Encoded(start, whole), answer.text))
    return sides["b"], sides["a"]


def main() -> int:
    # two threads on a machine with other work wait for each other more than they compute
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    shop = Workshop(Path(sys.argv[1]))
    adapter = chosen(shop, duels(shop))
    shop.tell(f"{adapter.name} is chosen; a core serves it")
    table = f'source = "smollm2"\nmax_new_tokens = {REPLY}\n'
    config = f'[models.before]\n{table}[models.after]\n{table}adapter = "{adapter}"\n'
    (shop.folder / "henji.toml").write_text(config)
    shop.henji("chat", "--once", "What is so good about the sun?", show=bool, HENJI_MODEL="after")
    shop.tell("the test prompts, looked at once")
    prompts = questions(DEV, len(TOPICS))
    show(looked_at(shop, prompts, compared(shop, prompts), adapter))
    shop.tell(f"done; {shop.folder / 'compared' / 'report.html'} has every answer")
    return 0


if __name__ == "__main__":
    sys.exit(main())
