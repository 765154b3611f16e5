"""Training adapters on tiny models: the served weights are the trained ones, and runs resume."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.alignment import Options, Work
from core.alignment.align import align
from core.alignment.datasets import Encoded, encode, read_examples
from core.alignment.lora import Trainee
from core.alignment.losses import Batch, reply_log_probs
from core.alignment.reward import RewardHead, Scorer
from core.alignment.run import Run, in_one_sentence
from core.alignment.train import draw_batch, split
from core.dialogue import Dialogue
from core.errors import ModelError, OperatorError, UsageError
from core.models.catalogue import find_named
from core.models.manifest import read_manifest, weights_digest
from core.models.weights import load_weights, read_adapter
from core.settings import Settings
from core.types import Turn
from tests import tiny_models
from tests.processes import Ran, henji

WORDS = ("猫", "天気", "目標", "計画", "質問", "首都", "明日", "週末", "日本", "雨")
IDS = Batch.of([Encoded((300, 12, 77), (401, 5, 3)), Encoded((5,), (6, 7))], torch.device("cpu"))


def said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def pairs(count: int = 40) -> list[dict[str, Any]]:
    """People who like what is short and sure."""
    return [
        {
            "prompt": [said("user", f"{WORDS[place % 10]}{place % 7}は?")],
            "chosen": [said("assistant", f"それは{WORDS[place % 9]}です。")],
            "rejected": [said("assistant", f"分かりません。 しかし{WORDS[place % 8]}")],
        }
        for place in range(count)
    ]


def rated(count: int = 20) -> list[dict[str, Any]]:
    return [
        {"prompt": pair["prompt"], "completion": pair[name], "label": name == "chosen"}
        for pair in pairs(count)
        for name in ("chosen", "rejected")
    ]


@dataclass
class Bench:
    """A tiny rinna model, data sets for it, and the lines printed while training."""

    folder: Path
    base: Path
    settings: Settings
    told: list[str]

    def data(self, rows: Sequence[Any]) -> Path:
        path = self.folder / "data.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return path

    def work(self, rows: Sequence[Any], out: str = "out", **options: Any) -> Work:
        known = {"method": "dpo", "steps": 6, "batch": 8, "micro": 4, "rate": 1e-2, "rank": 4}
        reward = options.pop("reward", None)
        made = Options(**{**known, "alpha": 8.0, **options})
        return Work("tiny", self.data(rows), self.folder / out, made, reward=reward)

    def align(self, rows: Sequence[Any], out: str = "out", **options: Any) -> Path:
        work = self.work(rows, out, **options)
        align(work, self.settings, self.told.append)
        return work.out

    def served(self, adapter: Path | None) -> Any:
        """The model as a core loads it."""
        spec = find_named("tiny", self.settings)
        spec = replace(spec, adapter=str(adapter) if adapter else None)
        return load_weights(spec, self.base, dtype="float32", device="cpu", progress=print)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    base = tiny_models.rinna(tmp_path / "base")
    table = {"source": str(base), "format": "rinna"}
    settings = Settings(models={"tiny": table}, data_dir=tmp_path / "data")
    return Bench(tmp_path, base, settings, [])


# -- the adapter in training -----------------------------------------------------------------------


def far(trainee: Trainee) -> Trainee:
    torch.manual_seed(5)
    for name, parameter in trainee.parameters().items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return trainee


@torch.no_grad()
def log_probs(model: Any) -> torch.Tensor:
    return reply_log_probs(model, IDS)


def test_a_new_adapter_changes_nothing(bench: Bench) -> None:
    base = log_probs(bench.served(None))
    trainee = Trainee.begin(bench.served(None), rank=4, alpha=8, layers=None, seed=0)
    assert torch.equal(log_probs(trainee.model), base)


def test_the_trained_adapter_is_the_served_one_and_the_reference_stays(bench: Bench) -> None:
    base = log_probs(bench.served(None))
    trainee = far(Trainee.begin(bench.served(None), rank=4, alpha=8, layers=1, seed=0))
    trainee.save(bench.folder, str(bench.base), None)
    policy = log_probs(trainee.model)
    assert (policy - base).abs().max() > 0.1
    assert torch.allclose(log_probs(trainee.served()), policy, atol=1e-4)
    assert torch.equal(log_probs(bench.served(bench.folder)), log_probs(trainee.served()))
    with trainee.as_reference():
        assert torch.equal(log_probs(trainee.model), base)
    assert torch.equal(log_probs(trainee.model), policy)


def test_training_that_goes_on_from_an_adapter_has_it_as_reference(bench: Bench) -> None:
    first = far(Trainee.begin(bench.served(None), rank=4, alpha=8, layers=None, seed=0))
    first.save(bench.folder, str(bench.base), None)
    start = read_adapter(bench.folder)
    second = Trainee.begin(bench.served(None), rank=9, alpha=1, layers=None, seed=1, start=start)
    assert torch.allclose(log_probs(second.model), log_probs(first.model), atol=1e-5)
    for parameter in second.parameters().values():
        torch.nn.init.zeros_(parameter)
    base = log_probs(bench.served(None))
    assert torch.equal(log_probs(second.model), base)
    with second.as_reference():
        assert torch.allclose(log_probs(second.model), log_probs(first.model), atol=1e-5)


def test_memory_is_saved_without_changing_a_gradient(bench: Bench) -> None:
    found = []
    for saves in (False, True):
        trainee = far(Trainee.begin(bench.served(None), rank=4, alpha=8, layers=None, seed=0))
        if saves:
            trainee.save_memory()
        reply_log_probs(trainee.model, IDS).sum().backward()  # type: ignore[no-untyped-call]
        found.append(
            torch.cat(
                [
                    one.grad.flatten()
                    for one in trainee.parameters().values()
                    if one.grad is not None
                ]
            )
        )
    assert found[0].abs().max() > 0
    assert torch.allclose(found[0], found[1], atol=1e-5)


# -- runs ------------------------------------------------------------------------------------------


def test_dpo_learns_the_chosen_replies_and_reports_progress(bench: Bench) -> None:
    out = bench.align(pairs(), steps=12, held_out=0.2)
    manifest = read_manifest(out)
    assert manifest is not None
    assert manifest.method == "dpo"
    assert len(manifest.examples) == 40
    assert manifest.result["accuracy"] == 1.0
    assert manifest.result["held out accuracy"] > 0.8
    rows = [json.loads(line) for line in (out / "progress.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert rows[-1]["loss"] < rows[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert rows[-1]["chosen"] > rows[-1]["rejected"]
    assert any("step 12/12" in line and "left" in line for line in bench.told)
    assert (out / "progress.svg").read_text().startswith("<svg")
    assert not (out / "checkpoint").exists()
    assert not torch.equal(log_probs(bench.served(out)), log_probs(bench.served(None)))


def test_kto_learns_from_thumbs(bench: Bench) -> None:
    out = bench.align(rated(), method="kto", steps=15)
    manifest = read_manifest(out)
    assert manifest is not None
    assert manifest.result["accuracy"] == 1.0
    assert manifest.result["liked"] > manifest.result["disliked"]


def test_sft_makes_the_replies_likelier(bench: Bench) -> None:
    out = bench.align(rated(), method="sft", steps=30)
    rows = [json.loads(line) for line in (out / "progress.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"] / 2


def broken_off_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt the next run after a step."""
    end_step = Run.end_step

    def stopped(run: Run, numbers: Any) -> None:
        end_step(run, numbers)
        if run.step == step:
            monkeypatch.undo()
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "end_step", stopped)


@pytest.mark.parametrize("method", ["dpo", "reward", "ppo"])
def test_a_run_that_was_broken_off_ends_as_if_it_had_not_been(
    method: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"method": method, "every": 2, "reply": 8}
    if method == "ppo":
        options["reward"] = bench.align(pairs(20), "taste", method="reward", steps=4)
    whole = bench.align(pairs(20), "whole", **options)
    broken_off_at(5, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        bench.align(pairs(20), "broken", **options)
    again = bench.align(pairs(20), "broken", **options)
    assert "going on behind step 4 of 6" in bench.told
    one, other = (load_file(out / "adapter_model.safetensors") for out in (whole, again))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert (whole / "progress.jsonl").read_text() == (again / "progress.jsonl").read_text()


def test_a_checkpoint_of_other_data_or_settings_is_not_gone_on_from(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_off_at(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        bench.align(pairs(), every=2)
    with pytest.raises(OperatorError, match="other data or settings"):
        bench.align(pairs(39), every=2)
    with pytest.raises(OperatorError, match="other data or settings"):
        bench.align(pairs(), every=2, beta=0.3)


def test_a_finished_adapter_is_not_written_over(bench: Bench) -> None:
    bench.align(pairs(), steps=1)
    with pytest.raises(OperatorError, match="holds an adapter already"):
        bench.align(pairs(), steps=1)


def test_a_data_set_of_one_pair_is_enough(bench: Bench) -> None:
    out = bench.align(pairs(1), steps=3)
    manifest = read_manifest(out)
    assert manifest is not None
    assert manifest.options["batch"] == 1


def test_a_loss_that_is_no_number_ends_the_run_with_a_sentence(bench: Bench) -> None:
    with pytest.raises(OperatorError, match=r"not a number any more at step \d+: lower --rate"):
        bench.align(pairs(), rate=1e30)


def test_no_memory_is_a_sentence() -> None:
    sentence = "not enough memory for a step: lower it"
    with pytest.raises(OperatorError, match=sentence), in_one_sentence("lower it"):
        torch.empty(10**16)
    with pytest.raises(OperatorError, match="not enough memory"), in_one_sentence("lower it"):
        raise torch.OutOfMemoryError
    with pytest.raises(RuntimeError, match="another"), in_one_sentence("lower it"):
        raise RuntimeError("another")


def test_kto_needs_both_kinds(bench: Bench) -> None:
    with pytest.raises(OperatorError, match="is liked: kto learns from both kinds"):
        bench.align(rated()[::2], method="kto")


def test_a_training_that_cannot_work_is_refused(bench: Bench) -> None:
    work = bench.work(pairs())
    echo = replace(work, model="echo")
    with pytest.raises(ModelError, match="no weights to train"):
        align(echo, bench.settings, print)
    remote = bench.settings.model_copy(update={"engine": "openai"})
    with pytest.raises(OperatorError, match="remote server"):
        align(work, remote, print)
    config = json.loads((bench.base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq"}
    (bench.base / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="are quantized"):
        align(work, bench.settings, print)


def test_examples_are_drawn_all_before_any_comes_again() -> None:
    steps = [draw_batch(step, 3, 7, seed=1) for step in range(7)]
    order = [place for step in steps for place in step]
    assert [sorted(order[start : start + 7]) for start in (0, 7, 14)] == [list(range(7))] * 3
    assert order[:7] != order[7:14]


def test_one_prompts_examples_are_never_on_both_sides(bench: Bench) -> None:
    dialogue = Dialogue.load(find_named("tiny", bench.settings), bench.base)
    examples = read_examples(bench.data(pairs() + pairs()), "dpo")
    items = encode(examples, dialogue, longest=200, tell=print)
    training, held_out = split(items, 0.25, seed=0)
    assert len(training) + len(held_out) == 80
    assert held_out
    assert {one.prompt for one in training}.isdisjoint(one.prompt for one in held_out)


# -- reward models, and PPO ------------------------------------------------------------------------


def test_a_reward_model_predicts_the_choice_of_people(bench: Bench) -> None:
    out = bench.align(pairs(), "taste", method="reward", steps=20, held_out=0.2)
    scorer = Scorer.open(out, bench.settings, print)
    turns = [Turn("1", "user", "", "東京は?", 0.0)]
    good, bad = (
        scorer.score(turns, "それは猫です。"),
        scorer.score(turns, "分かりません。 しかし雨"),
    )
    assert good > 0 > bad
    head = RewardHead.load(out, torch.device("cpu"))
    assert head.deviation.item() > 0


def test_a_folder_without_a_reward_model_is_refused(bench: Bench) -> None:
    with pytest.raises(UsageError, match="ppo needs --reward DIR"):
        bench.align(pairs(), method="ppo")
    policy = bench.align(pairs(), "policy", steps=1)
    with pytest.raises(ModelError, match="is no reward model"):
        bench.align(pairs(), method="ppo", reward=policy)
    with pytest.raises(ModelError, match="is no reward model"):
        Scorer.open(bench.folder, bench.settings, print)


def test_ppo_says_which_reward_model_it_was_trained_against(bench: Bench) -> None:
    taste = bench.align(pairs(), "taste", method="reward", steps=8)
    other = bench.align(pairs(30), "other", method="reward", steps=8)
    out = bench.align(pairs(), "policy", method="ppo", reward=taste, steps=2, reply=8)
    manifest = read_manifest(out)
    assert manifest is not None
    assert weights_digest(taste) in manifest.rewards
    assert weights_digest(other) not in manifest.rewards
    assert set(manifest.result) >= {"reward", "kl", "length", "ended", "loss"}


def test_no_gradient_reaches_the_reference(bench: Bench) -> None:
    taste = bench.align(pairs(), "taste", method="reward", steps=2)
    trainee = Trainee.begin(bench.served(None), rank=4, alpha=8, layers=None, seed=0)
    trainee.attach("reward", read_adapter(taste))
    with trainee.using("reward"):
        pass
    trained = {name for name, one in trainee.model.named_parameters() if one.requires_grad}
    assert trained == set(trainee.parameters())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny model, the settings that name it, and a data set of pairs."""
    tiny_models.rinna(tmp_path / "base")
    lines = ["[models.tiny]", f'source = "{tmp_path / "base"}"', 'format = "rinna"']
    (tmp_path / "henji.toml").write_text("\n".join(lines))
    for name, rows in (("pairs", pairs()), ("rated", rated())):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    monkeypatch.setenv("HENJI_CONFIG", str(tmp_path / "henji.toml"))
    monkeypatch.setenv("HENJI_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


async def ran(*words: object) -> Ran:
    return await henji("align", *map(str, words))


async def test_the_cards_way_from_thumbs_to_a_policy(folder: Path) -> None:
    """SFT, then a reward model from pairs, then PPO that goes on from the first adapter."""
    first = await ran("tiny", "--data", folder / "rated.jsonl", "--method", "sft", "--steps", 4)
    assert first.status == 0, first.err
    out = folder / "data" / "adapters" / "tiny-sft"
    assert first.out == f"{out}\n"
    assert f'under [models.tiny]:\nadapter = "{out}"' in first.err
    assert "step 4/4" in first.err
    with (folder / "henji.toml").open("a") as settings:
        settings.write(f'\nadapter = "{out}"\n')
    taste = folder / "taste"
    words = ("tiny", "--data", folder / "pairs.jsonl", "--reward", "--out", taste, "--steps", 4)
    second = await ran(*words)
    assert second.status == 0, second.err
    assert "to serve it" not in second.err
    policy = folder / "policy"
    third = await ran(
        *("tiny", "--data", folder / "pairs.jsonl", "--method", "ppo", "--reward", taste),
        *("--out", policy, "--steps", 2, "--reply", 8),
    )
    assert third.status == 0, third.err
    made, started = read_manifest(policy), read_manifest(out)
    assert made is not None
    assert started is not None
    assert len(made.rewards) == 1
    assert set(started.examples) < set(made.examples)  # with those of its base


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--data", "pairs.jsonl"], "--method is missing: sft, dpo, kto, ppo, or --reward"),
        (["--data", "pairs.jsonl", "--method", "dpo", "--reward", "x"], "not dpo"),
        (["--data", "pairs.jsonl", "--method", "ppo", "--reward"], "a folder; not ppo"),
        (["--data", "pairs.jsonl", "--method", "rloo"], "'rloo' is not one of"),
        (["--method", "dpo"], "Missing option '--data'"),
    ],
)
async def test_a_command_line_that_is_wrong_is_said_in_a_sentence(
    folder: Path, words: list[str], sentence: str
) -> None:
    found = await ran("tiny", *words)
    assert found.status == 2
    assert sentence in found.err


async def test_a_data_set_of_another_kind_is_said_in_a_sentence(folder: Path) -> None:
    found = await ran("tiny", "--data", folder / "rated.jsonl", "--method", "dpo")
    assert found.status == 1
    assert "line 1, has no chosen and no rejected" in found.err
    assert found.err.count("\n") == 1
