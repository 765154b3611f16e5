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
    """0: as many as go through the examples."""
    batch: int
    """Examples of one step."""
    micro: int
    """Of those, how many go through the model at once."""
    rate: float
    """AdamW's learning rate, after a tenth of the steps as warm-up, and falling to 0 at the end."""
    beta: float = 0.1
    """DPO's and KTO's: how strongly the policy is held to the reference."""
    kl: float = 0.05
    """PPO's: what a nat of distance from the reference costs, in deviations of the reward."""
    rank: int = 16
    alpha: float = 32.0
    layers: int | None = None
    """Only the last so many layers are changed; None: all."""
    seed: int = 0
    held_out: float = 0.1
    """The share of examples that are kept from training and looked at in the end."""
    longest: int = 1024
    """Tokens of prompt and reply; longer examples are left out."""
    reply: int = 128
    """PPO's: tokens that a reply may take."""
    rounds: int = 4
    """PPO's: how often the replies of a step are gone through."""
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
    """How often the examples are gone through, where the options name no steps."""
    reward: Path | None = None
    """PPO's reward model."""
