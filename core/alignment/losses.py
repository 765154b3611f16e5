"""The losses of alignment, on token ids: SFT, DPO, KTO, PPO, and a reward model's.

A reply's log-probability is the sum over its tokens, its end included, given its prompt. With the
same ids, log-probabilities and losses are those of TRL 1.16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.alignment.datasets import Encoded

PADDING = 0
"""Any id: it pads a sequence at the end, which causal attention never reads."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts with their replies, padded on the right."""

    ids: Tensor
    """(sequences, length)"""
    replies: Tensor
    """(sequences, length), bool: where an id is a reply's."""
    lengths: Tensor
    """(sequences,): ids without the padding."""
    start: int
    """The first position whose next id is a reply's, in any sequence."""

    @classmethod
    def of(cls, sequences: Sequence[Encoded], device: torch.device) -> Self:
        """The batch of prompts that hold at least one id each."""
        longest = max(len(one.prompt) + len(one.reply) for one in sequences)
        ids = torch.full((len(sequences), longest), PADDING)
        replies = torch.zeros_like(ids, dtype=torch.bool)
        for row, one in enumerate(sequences):
            end = len(one.prompt) + len(one.reply)
            ids[row, :end] = torch.tensor(one.prompt + one.reply)
            replies[row, len(one.prompt) : end] = True
        lengths = [len(one.prompt) + len(one.reply) for one in sequences]
        start = min(len(one.prompt) for one in sequences) - 1
        return cls(ids.to(device), replies.to(device), torch.tensor(lengths).to(device), start)

    @property
    def mask(self) -> Tensor:
        """(sequences, length - 1 - start), bool: the tokens of replies, as `token_log_probs` has
        them."""
        return self.replies[:, self.start + 1 :]


def token_log_probs(model: nn.Module, batch: Batch) -> Tensor:
    """The log-probability of each reply's tokens, (sequences, length - 1 - start); elsewhere 0.

    The model's head is applied from `batch.start` on: a prompt's logits are not needed.
    """
    kept = batch.ids.shape[1] - batch.start
    logits = model(input_ids=batch.ids, use_cache=False, logits_to_keep=kept).logits
    return log_probs_of(logits, batch)


def log_probs_of(logits: Tensor, batch: Batch) -> Tensor:
    """`token_log_probs` from logits that begin at `batch.start`."""
    scores = logits[:, :-1].float()
    following = batch.ids[:, batch.start + 1 :].unsqueeze(-1)
    chosen = scores.gather(-1, following).squeeze(-1) - scores.logsumexp(-1)
    return chosen.masked_fill(~batch.mask, 0.0)


def reply_log_probs(model: nn.Module, batch: Batch) -> Tensor:
    """The log-probability of each reply, (sequences,)."""
    return token_log_probs(model, batch).sum(-1)


# -- the losses: one number for a batch, to be made smaller ----------------------------------------


def sft(tokens: Tensor, mask: Tensor) -> Tensor:
    """The mean of the tokens' negative log-probabilities."""
    return -tokens.sum() / mask.sum()


def dpo(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """Rafailov and others 2023, equation 7.

    `chosen`, `rejected`: (pairs,), each reply's log-probability under the policy less that under
    the reference.
    """
    return -functional.logsigmoid(beta * (chosen - rejected)).mean()


def kto(ratios: Tensor, liked: Tensor, shift: Tensor, beta: float) -> Tensor:
    """Ethayarajh and others 2024, equation 7, with both weights 1.

    `ratios`: (replies,), log-probabilities under the policy less those under the reference.
    `liked`: (replies,), bool. `shift`: see `kto_shift`.
    """
    gains = torch.where(liked, ratios - shift, shift - ratios)
    return (1 - torch.sigmoid(beta * gains)).mean()


def kto_shift(ratios: Tensor) -> Tensor:
    """The policy's distance from the reference, from the `ratios` of `mismatched` replies; without
    a gradient, and never below 0."""
    return ratios.detach().mean().clamp(min=0)


def mismatched(sequences: Sequence[Encoded]) -> list[Encoded]:
    """Each prompt with the reply of the prompt before it; the first with the last reply."""
    replies = [sequences[-1].reply, *(one.reply for one in sequences[:-1])]
    return [Encoded(one.prompt, reply) for one, reply in zip(sequences, replies, strict=True)]


def preference(chosen: Tensor, rejected: Tensor) -> Tensor:
    """A reward model's loss, Bradley and Terry's: `chosen` and `rejected` are scores, (pairs,)."""
    return -functional.logsigmoid(chosen - rejected).mean()


# -- PPO (Schulman and others 2017), as RLHF uses it -----------------------------------------------
#
# All tensors are (replies, tokens). `mask` marks the tokens; everything outside it is 0.


@dataclass(frozen=True, slots=True)
class PpoSettings:
    """The parameters of PPO, with the first defaults of trlx and TRL."""

    kl: float = 0.1
    """The price of a nat of distance from the reference."""
    clip: float = 0.2
    """The most that the ratio of new to old probability may differ from 1."""
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
    than the value head expected. After a reply's last token the value is 0."""
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
    """The squared error of the value head, which may move by `clip` from its former value."""
    bounded = old + (new - old).clamp(-clip, clip)
    worse = torch.maximum((new - returns) ** 2, (bounded - returns) ** 2)
    return 0.5 * average(worse, mask)


def clipped_share(new: Tensor, old: Tensor, mask: Tensor, clip: float) -> Tensor:
    """The share of tokens whose ratio is out of bounds."""
    outside = ((new - old).exp() - 1).abs() > clip
    return average(outside.float(), mask)
