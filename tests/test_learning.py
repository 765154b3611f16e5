"""The whole circle on a tiny GPT-NeoX: votes, a reward model, PPO, and a model that is liked.

What `make learn` shows with the embedded model, in less than a minute.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from core.alignment import Options, Work
from core.alignment.align import align
from core.alignment.datasets import Encoded
from core.alignment.losses import Batch, reply_log_probs
from core.alignment.ppo_training import RolloutRequest, generate_replies
from core.dialogue import Dialogue
from core.models.catalogue import find_named
from core.models.manifest import read_manifest
from core.models.weights import load_weights, read_adapter
from core.settings import Settings
from core.types import Turn
from tests import tiny_models

WORDS = (
    "吾輩",
    "猫",
    "名前",
    "日本",
    "首都",
    "東京",
    "目",
    "天気",
    "雨",
    "週末",
    "計画",
    "質問",
    "時間",
)
REPLY = 16


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """For matrices as small as these, a second thread only waits for the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def even(reply: Sequence[int]) -> float:
    """The hidden taste, which anybody can check: the share of even ids."""
    return sum(ident % 2 == 0 for ident in reply) / len(reply)


def said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


class House:
    """A tiny model, and its settings for serving."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = tiny_models.rinna(folder / "base", hidden=64, context_length=128)
        self.calm()
        table = {"source": str(self.base), "format": "rinna", "max_new_tokens": REPLY}
        self.settings = Settings(models={"tiny": table}, data_dir=folder)
        self.spec = find_named("tiny", self.settings)
        self.dialogue = Dialogue.load(self.spec, self.base)

    def calm(self) -> None:
        """Random attention looks at single ids; let it look at all alike, so that a last hidden
        state can tell something of the whole reply, as a trained model's does."""
        path = self.base / "pytorch_model.bin"
        weights = torch.load(path)
        for name, weight in weights.items():
            if "query_key_value.weight" in name:
                weight.view(2, 3, 32, 64)[:, :2] *= 0.1
            elif "query_key_value.bias" in name:
                weight *= 0.1
            elif "embed_out" in name:
                weight *= 0.6
        torch.save(weights, path)

    def model(self, adapter: Path | None = None) -> PreTrainedModel:
        spec = replace(self.spec, adapter=str(adapter) if adapter else None)
        return load_weights(spec, self.base, dtype="float32", device="cpu", progress=print)

    def prompt(self, text: str) -> tuple[int, ...]:
        return self.dialogue.prompt([Turn("1", "user", "", text, 0.0)], low_water=1.0).ids

    def replies(
        self, texts: Sequence[str], seed: int, adapter: Path | None = None
    ) -> list[Encoded]:
        prompts = [self.prompt(text) for text in texts]
        stop_ids, end = self.dialogue.stop_ids, self.dialogue.end
        request = RolloutRequest(prompts, REPLY, stop_ids, end, seed)
        return generate_replies(self.model(adapter), request)

    def align(self, data: Path, method: Any, **options: Any) -> Path:
        known = {"batch": 32, "micro": 32, "rank": 8, "alpha": 16.0, "reply": REPLY, "steps": 0}
        reward = options.pop("reward", None)
        epochs = options.pop("epochs", 1.0)
        work = Work(
            "tiny",
            data,
            self.folder / method,
            Options(method=method, **{**known, **options}),
            epochs,
            reward,
        )
        align(work, self.settings, print)
        return work.out

    def duels(self, texts: Sequence[str], path: Path) -> Path:
        """Two replies to each text, and a vote: one in ten is a slip."""
        votes = random.Random(3)
        first, second = self.replies(texts, 1000), self.replies(texts, 2000)
        with path.open("w") as file:
            for text, a, b in zip(texts, first, second, strict=True):
                if (even(a.reply) < even(b.reply)) != (votes.random() < 0.1):
                    a, b = b, a
                file.write(json.dumps(self.row(text, a, b), ensure_ascii=False) + "\n")
        return path

    def row(self, text: str, chosen: Encoded, rejected: Encoded) -> dict[str, Any]:
        decode = self.dialogue.tokenizer.decode
        return {
            "prompt": [said("user", text)],
            "chosen": [said("assistant", decode(chosen.reply))],
            "rejected": [said("assistant", decode(rejected.reply))],
            "tokens": {
                "fingerprint": self.dialogue.fingerprint,
                "prompt": chosen.prompt,
                "chosen": chosen.reply,
                "rejected": rejected.reply,
            },
        }


def questions(count: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    return ["".join(chance.choices(WORDS, k=3)) + f"{place}は?" for place in range(count)]


def wins(before: Sequence[Encoded], after: Sequence[Encoded]) -> tuple[int, int, int]:
    """Won, tied and lost by the taste itself."""
    pairs = list(zip(before, after, strict=True))
    won = sum(even(b.reply) > even(a.reply) for a, b in pairs)
    lost = sum(even(b.reply) < even(a.reply) for a, b in pairs)
    return won, len(pairs) - won - lost, lost


def under(model: PreTrainedModel, replies: Sequence[Encoded]) -> float:
    """The log-probability of a token under a model, on average."""
    batch = Batch.of(replies, torch.device("cpu"))
    with torch.no_grad():
        return float((reply_log_probs(model, batch) / batch.mask.sum(-1)).mean())


def test_votes_make_a_reward_model_and_ppo_makes_a_model_that_is_liked_better(
    tmp_path: Path,
) -> None:
    house = House(tmp_path)
    votes = house.duels(questions(1600, seed=1), tmp_path / "votes.jsonl")
    taste = house.align(votes, "reward", rate=1e-2, held_out=0.15)
    learned = read_manifest(taste)
    assert learned is not None
    assert 0.53 < learned.result["held out accuracy"] < 0.9  # one vote in ten is a mistake

    asked = tmp_path / "asked.jsonl"
    rows = [{"prompt": [said("user", text)]} for text in questions(200, seed=1)]
    asked.write_text("".join(json.dumps(row) + "\n" for row in rows))
    policy = house.align(asked, "ppo", reward=taste, rate=3e-3, steps=14, kl=0.1)
    made = read_manifest(policy)
    assert made is not None

    held_out = questions(80, seed=2)
    before, after = house.replies(held_out, 7), house.replies(held_out, 8, policy)
    won, _, lost = wins(before, after)
    assert won > 60 > 15 > lost
    assert sum(even(one.reply) for one in after) > 1.25 * sum(even(one.reply) for one in before)
    # the run also shows the cost: the base finds such text less likely
    assert made.result["kl"] > 1
    assert under(house.model(policy), after) > under(house.model(), after) + 0.1
    # a copy of the weights was policy, reference and reward model; the base's are untouched
    assert read_adapter(policy).base == str(house.base)
