"""Training from people's ratings: examples, losses, training, adapters.

See README.md beside this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Method: TypeAlias = Literal["sft", "dpo", "kto", "ppo", "reward"]


@dataclass(frozen=True, slots=True)
class Options:
    """How to train."""

    method: Method
    steps: int
    """0: as many as the epochs need."""
    batch: int
    """Examples of one step."""
    micro: int
    """Of those, the examples that are computed at once."""
    rate: float
    """AdamW's learning rate, after a tenth of the steps as warm-up, and falling to 0 at the end."""
    beta: float = 0.1
    """DPO's and KTO's: the weight of staying near the reference."""
    kl: float = 0.05
    """PPO's: the price of a nat of distance from the reference, in standard deviations of the
    reward."""
    rank: int = 16
    alpha: float = 32.0
    layers: int | None = None
    """Train only the last so many layers; None: all."""
    seed: int = 0
    held_out: float = 0.1
    """The share of examples that are not trained on but evaluated at the end."""
    longest: int = 1024
    """Tokens of prompt and reply; longer examples are left out."""
    reply: int = 128
    """PPO's: the most tokens of a reply."""
    rounds: int = 4
    """PPO's: the number of passes over the replies of a step."""
    every: int = 20
    """Steps between two checkpoints."""


@dataclass(frozen=True, slots=True)
class Work:
    """One alignment: the model, the data, the output folder and the options."""

    model: str
    data: Path
    out: Path
    options: Options
    epochs: float = 1.0
    """The number of passes over the examples, if the options have no steps."""
    reward: Path | None = None
    """PPO's reward model."""
