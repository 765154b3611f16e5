"""The arithmetic of PPO (Schulman and others 2017), as RLHF uses it: pure, on tensors.

All tensors are (replies, tokens); `mask` says where a token is. Tokens of a reply stand side by
side, and what is outside the mask is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PpoSettings:
    """The numbers of PPO; these are those that trlx and TRL began with."""

    kl: float = 0.1
    """How much a nat of distance from the reference costs."""
    clip: float = 0.2
    """How far the ratio of new to old probability may go from 1."""
    value_clip: float = 0.2
    value_weight: float = 0.1
    discount: float = 1.0
    smoothing: float = 0.95
    """GAE's lambda."""


def rewards(scores: Tensor, policy: Tensor, reference: Tensor, mask: Tensor, kl: float) -> Tensor:
    """Each token's reward: the price of its distance from the reference, and the reply's score at
    its last token.

    `scores`: (replies,); `policy` and `reference`: log-probabilities.
    """
    paid = -kl * (policy - reference) * mask
    return paid + _at_last(mask) * scores.unsqueeze(-1)


def _at_last(mask: Tensor) -> Tensor:
    """1 at the last token of each reply."""
    following = torch.nn.functional.pad(mask[:, 1:], (0, 1))
    return (mask & ~following).float()


def advantages(rewards: Tensor, values: Tensor, mask: Tensor, settings: PpoSettings) -> Tensor:
    """Generalized advantage estimation (Schulman and others 2016): how much better each token was
    than the value head expected. Behind a reply's last token the value is 0."""
    values = values * mask
    found = torch.zeros_like(rewards)
    later = following = torch.zeros_like(rewards[:, 0])
    for token in range(rewards.shape[1] - 1, -1, -1):
        error = rewards[:, token] + settings.discount * following - values[:, token]
        later = (error + settings.discount * settings.smoothing * later) * mask[:, token]
        following = values[:, token]
        found[:, token] = later
    return found


def whitened(x: Tensor, mask: Tensor) -> Tensor:
    """With mean 0 and variance 1 over the tokens."""
    mean = average(x, mask)
    variance = average((x - mean) ** 2, mask)
    return (x - mean) * torch.rsqrt(variance + 1e-8) * mask


def average(x: Tensor, mask: Tensor) -> Tensor:
    """The mean over the tokens."""
    return (x * mask).sum() / mask.sum()


def policy_loss(new: Tensor, old: Tensor, gains: Tensor, mask: Tensor, clip: float) -> Tensor:
    """The clipped surrogate: `new` and `old` are log-probabilities, `gains` the advantages."""
    ratio = torch.exp(new - old)
    bounded = ratio.clamp(1 - clip, 1 + clip)
    return average(torch.maximum(-gains * ratio, -gains * bounded), mask)


def value_loss(new: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """The squared error of the value head, which may move by `clip` from what it said before."""
    bounded = old + (new - old).clamp(-clip, clip)
    worse = torch.maximum((new - returns) ** 2, (bounded - returns) ** 2)
    return 0.5 * average(worse, mask)


def clipped_share(new: Tensor, old: Tensor, mask: Tensor, clip: float) -> Tensor:
    """The share of tokens whose ratio is out of bounds."""
    outside = ((new - old).exp() - 1).abs() > clip
    return average(outside.float(), mask)
