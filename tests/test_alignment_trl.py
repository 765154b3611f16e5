"""Our log-probabilities and losses compared with TRL's, on the same ids: `make golden`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import (
    AutoTokenizer,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GPTNeoXForSequenceClassification,
    PreTrainedModel,
)

from core.alignment import Options, losses
from core.alignment.datasets import Encoded, Example, Form, Item, choices
from core.alignment.datasets import rows as rows_of
from core.alignment.lora import Trainee
from core.alignment.losses import Batch
from core.alignment.reward import RewardHead
from core.alignment.train import Dpo, Kto, Reference, Sft
from core.queue_types import Sample, Trace
from core.types import ThreadKey, Turn
from tests import tiny_models

trl = pytest.importorskip("trl", reason="TRL is not here: make golden")
datasets = pytest.importorskip("datasets")

PAIRS = [
    ((5, 6, 7), (8, 9, 3), (10, 3)),
    ((11, 12), (13, 14, 15, 16, 3), (17, 18, 19, 3)),
    ((20,), (21, 22, 3), (23, 24, 25, 26, 27, 3)),
    ((28, 29, 30, 31, 32), (33, 3), (34, 35, 3)),
]
"""Prompt, chosen, rejected."""


def configured(**more: Any) -> GPTNeoXConfig:
    return GPTNeoXConfig(
        vocab_size=500,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        use_parallel_residual=False,
        initializer_range=0.3,
        **more,
    )


def gpt_neox() -> PreTrainedModel:
    torch.manual_seed(1)
    return GPTNeoXForCausalLM(configured())


def trainee(seed: int = 3) -> Trainee:
    """A policy that has gone some way from its reference."""
    made = Trainee.begin(gpt_neox(), rank=4, alpha=8.0, layers=None, seed=seed)
    torch.manual_seed(seed)
    for name, parameter in made.parameters().items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return made


def item(prompt: tuple[int, ...], *replies: tuple[int, ...], liked: bool = True) -> Item:
    example = Example(None, (), (), liked, (), "", "", ())
    return Item(prompt, tuple(Encoded(prompt, reply) for reply in replies), liked, example)


def options(method: Any, beta: float = 0.1) -> Options:
    return Options(method=method, steps=1, batch=4, micro=4, rate=1e-3, beta=beta)


@dataclass(frozen=True, slots=True)
class Theirs:
    """What TRL's trainer makes of a batch of ids."""

    loss: torch.Tensor
    reference: tuple[torch.Tensor, ...]
    gradient: torch.Tensor


def asked(kind: Any, config: Any, rows: Sequence[dict[str, Any]], tmp_path: Path) -> Theirs:
    """Their trainer on the same weights, given ready ids."""
    lora = peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
    trainer = on_ids(kind, config, rows, tmp_path, model=gpt_neox(), peft_config=lora)
    peft.set_peft_model_state_dict(trainer.model, trainee().state())
    batch = trainer.data_collator(list(rows))
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    looks = getattr(trainer, "compute_ref_log_probs", None)
    known = looks(trainer.model, batch) if looks else ()
    return Theirs(loss.detach(), known, gradient_of(trainer.model))


def on_ids(kind: Any, config: Any, rows: Sequence[Any], tmp_path: Path, **more: Any) -> Any:
    """A trainer that takes ids as they are."""

    class OnIds(kind):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *others: Any, **named: Any) -> Any:
            return dataset

    tiny_models.llama(tmp_path / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    tokenizer.pad_token = "</s>"
    return OnIds(
        args=config,
        train_dataset=datasets.Dataset.from_list(list(rows)),
        processing_class=tokenizer,
        **more,
    )


def gradient_of(model: Any) -> torch.Tensor:
    found = [
        parameter.grad.flatten()
        for name, parameter in sorted(model.named_parameters())
        if "lora_" in name and parameter.grad is not None
    ]
    return torch.cat(found)


def arguments(kind: Any, tmp_path: Path, **more: Any) -> Any:
    return kind(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        **more,
    )


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_dpo_is_theirs(beta: float, tmp_path: Path) -> None:
    rows = [
        {"prompt_ids": list(prompt), "chosen_ids": list(chosen), "rejected_ids": list(rejected)}
        for prompt, chosen, rejected in PAIRS
    ]
    config = arguments(trl.DPOConfig, tmp_path, beta=beta)
    theirs = asked(trl.DPOTrainer, config, rows, tmp_path)
    ours = trainee()
    items = [item(*pair) for pair in PAIRS]
    loss, _ = Dpo(ours, items, options("dpo", beta))(range(4))
    loss.backward()  # type: ignore[no-untyped-call]
    reference = Reference(ours, items)(range(4))
    assert torch.allclose(reference, torch.stack(theirs.reference[:2]).cpu(), atol=1e-5)
    assert torch.allclose(loss.detach(), theirs.loss, atol=1e-6)
    assert torch.allclose(gradient_of(ours.model), theirs.gradient, atol=1e-5)


def test_kto_is_theirs(tmp_path: Path) -> None:
    liked = [True, False, True, False]
    replies = [pair[1] for pair in PAIRS]
    shifted = [replies[-1], *replies[:-1]]
    rows = [
        {
            "prompt_ids": list(pair[0]),
            "completion_ids": list(pair[1]),
            "KL_completion_ids": list(other),
            "label": label,
        }
        for pair, other, label in zip(PAIRS, shifted, liked, strict=True)
    ]
    theirs = asked(trl.KTOTrainer, arguments(trl.KTOConfig, tmp_path), rows, tmp_path)
    ours = trainee()
    items = [item(pair[0], pair[1], liked=label) for pair, label in zip(PAIRS, liked, strict=True)]
    loss, _ = Kto(ours, items, options("kto"))(range(4))
    loss.backward()  # type: ignore[no-untyped-call]
    reference = Reference(ours, items)(range(4))
    assert torch.allclose(reference[0], theirs.reference[0].cpu(), atol=1e-5)
    assert torch.allclose(loss.detach(), theirs.loss, atol=1e-6)
    assert torch.allclose(gradient_of(ours.model), theirs.gradient, atol=1e-5)


def test_sft_is_theirs(tmp_path: Path) -> None:
    rows = [
        {
            "input_ids": list(pair[0] + pair[1]),
            "labels": [-100] * len(pair[0]) + list(pair[1]),
        }
        for pair in PAIRS
    ]
    config = arguments(trl.SFTConfig, tmp_path)
    theirs = asked(trl.SFTTrainer, config, rows, tmp_path)
    ours = trainee()
    loss, _ = Sft(ours, [item(*pair[:2]) for pair in PAIRS])(range(4))
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.allclose(loss.detach(), theirs.loss, atol=1e-6)
    assert torch.allclose(gradient_of(ours.model), theirs.gradient, atol=1e-5)


def test_a_reward_models_loss_is_theirs(tmp_path: Path) -> None:
    rows = [
        {"chosen_ids": list(prompt + chosen), "rejected_ids": list(prompt + rejected)}
        for prompt, chosen, rejected in PAIRS
    ]
    torch.manual_seed(1)
    scored: Any = GPTNeoXForSequenceClassification(configured(num_labels=1, pad_token_id=0))
    config = arguments(trl.RewardConfig, tmp_path)
    trainer = on_ids(trl.RewardTrainer, config, rows, tmp_path, model=scored)
    theirs = trainer.compute_loss(scored, trainer.data_collator(rows))
    head = RewardHead(32)
    head.score.weight.data.copy_(scored.score.weight)
    replies = [Encoded(pair[0], pair[place]) for place in (1, 2) for pair in PAIRS]
    chosen, rejected = head.raw(scored, Batch.of(replies, torch.device("cpu"))).chunk(2)
    assert torch.allclose(losses.preference(chosen, rejected), theirs, atol=1e-6)


# -- data sets of people's choices -----------------------------------------------------------------

TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def chosen_by_people(form: Form, path: Path) -> Any:
    """A file of `henji admin preferences`, as `datasets` reads it."""
    turns = (Turn("1", "user", "U1", "hello there", 0.0),)
    one, two = (
        Trace(turns, text, "m", prompt_ids=(1, 2), reply_ids=(number, 3), fingerprint="f")
        for number, text in ((7, "a good reply"), (8, "another reply"))
    )
    thread = ThreadKey("console", "host", "c", "1")
    votes: list[dict[str, str]] = [{"U1": "1"}, {"U1": "2"}, {"U2": "1"}, {"U1": "bad"}]
    kept = [
        Sample(thread, str(number), "U1", ("U1",), (one, two), vote)
        for number, vote in enumerate(votes)
    ]
    kept.append(
        Sample(thread, "last", "U1", ("U1",), (replace(one, reply_ids=()),), {"U1": "good"})
    )
    lines = [
        json.dumps(row) + "\n"
        for choice in choices(kept, weak=False)
        for row in rows_of(choice, form, {"U1": "digest"})
    ]
    path.write_text("".join(lines))
    cache = str(path.parent / "cache")
    return datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=cache)


@pytest.mark.parametrize(
    ("form", "trainer", "config", "number"),
    [("dpo", "DPOTrainer", "DPOConfig", 3), ("kto", "KTOTrainer", "KTOConfig", 9)],
)
def test_their_trainers_take_what_people_chose(
    form: Form, trainer: str, config: str, number: int, tmp_path: Path
) -> None:
    data = chosen_by_people(form, tmp_path / "data.jsonl")
    assert len(data) == number
    tiny_models.llama(tmp_path / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    tokenizer.pad_token, tokenizer.chat_template = "</s>", TEMPLATE
    torch.manual_seed(1)
    model: Any = GPTNeoXForCausalLM(configured())
    model.resize_token_embeddings(len(tokenizer))
    trains = getattr(trl, trainer)(
        model=model,
        args=arguments(getattr(trl, config), tmp_path / "out", max_steps=1),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=peft.LoraConfig(r=4, target_modules="all-linear"),
    )
    assert 0 < trains.train().training_loss < 10
