"""``henji align``: train an adapter on people's preferences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bots.cli.common import example, file_name, open_settings, print_status
from core.alignment import Options, Work
from core.errors import UsageError

if TYPE_CHECKING:
    from core.settings import Settings

METHODS = ("sft", "dpo", "kto", "ppo")

_RATES = {"sft": 2e-4, "dpo": 5e-5, "kto": 5e-5, "reward": 1e-4, "ppo": 2e-5}
"""AdamW's, for adapters of rank 16 on models of some billion parameters."""

_TRAIN = ""
"""The value of --reward without a folder."""

_count = click.IntRange(min=1)


@click.command(
    epilog=example(
        "henji align rinna-sft --data liked.jsonl --method dpo",
        "henji align rinna-sft --data liked.jsonl --reward --out taste",
        "henji align rinna-sft --data asked.jsonl --method ppo --reward taste",
    )
)
@click.argument("model")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Examples, as JSONL.")
@click.option("--method", type=click.Choice(METHODS), help="How to learn from them.")
@click.option(
    "--reward",
    is_flag=False,
    flag_value=_TRAIN,
    metavar="[DIR]",
    help="Alone: train a reward model on pairs. With ppo: the reward model to learn from.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The adapter's folder.")
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True), default=1.0)
@click.option("--steps", type=_count, help="Instead of epochs.")
@click.option("--batch", type=_count, default=16, help="Examples of one step.")
@click.option("--micro", type=_count, default=4, help="Examples computed at once.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="AdamW's learning rate.")
@click.option("--beta", type=click.FloatRange(min=0, min_open=True), default=0.1)
@click.option("--kl", type=click.FloatRange(min=0), default=0.05, help="PPO's price of a nat.")
@click.option("--rank", type=_count, default=16, help="The adapter's rank; alpha is twice that.")
@click.option("--layers", type=_count, help="Train only the last N layers.")
@click.option("--longest", type=_count, default=1024, help="Tokens of an example, at most.")
@click.option("--reply", type=_count, default=128, help="Tokens of a reply that PPO generates.")
@click.option("--held-out", type=click.FloatRange(0, 0.5), default=0.1, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**31), default=0)
def align(**given: Any) -> None:
    """Train MODEL on people's preferences.

    Trains a LoRA adapter on one GPU, or a small model on a CPU. The examples are in TRL's
    conversational format: prompt, chosen, rejected for dpo and for --reward; prompt, completion,
    label for kto; either for sft; prompt alone is enough for ppo. An interrupted run goes on from
    its last checkpoint.
    """
    settings = open_settings(log_level="error")
    work = _work(given, settings)
    # a bot's image has no torch in it, and one without the extra has no peft
    from core.alignment.align import align as train

    train(work, settings, print_status)
    click.echo(work.out)
    if work.options.method != "reward":
        for line in _how_to_serve(work, settings):
            print_status(line)


def _work(given: dict[str, Any], settings: Settings) -> Work:
    method, reward = _method(given.pop("method"), given.pop("reward"))
    model, data, out = given.pop("model"), given.pop("data"), given.pop("out")
    epochs, rate = given.pop("epochs"), given.pop("rate")
    options = Options(
        method=method,
        rate=rate or _RATES[method],
        alpha=2.0 * given["rank"],
        steps=given.pop("steps") or 0,
        **given,
    )
    out = out or settings.data_dir / "adapters" / f"{file_name(model)}-{method}"
    return Work(model, data, out, options, epochs, reward)


def _method(method: str | None, reward: str | None) -> tuple[Any, Path | None]:
    """The method, and PPO's reward model."""
    if method is None and reward == _TRAIN:
        return "reward", None
    if method is None:
        raise UsageError(f"--method is missing: {', '.join(METHODS)}, or --reward at the end")
    if reward is not None and (method != "ppo" or reward == _TRAIN):
        raise UsageError(f"--reward goes with no method, or with ppo and a folder; not {method}")
    return method, Path(reward).expanduser() if reward else None


def _how_to_serve(work: Work, settings: Settings) -> Sequence[str]:
    """Lines of henji.toml, behind a sentence."""
    adapter = f'adapter = "{work.out.resolve()}"'
    if work.model in settings.models:
        return f"to serve it, in henji.toml under [models.{work.model}]:", adapter
    name = f"{work.model.rpartition('/')[2]}-{work.options.method}"
    return "to serve it, in henji.toml:", f'[models."{name}"]', f'source = "{work.model}"', adapter
