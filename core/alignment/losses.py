"""The losses of alignment, on token ids: SFT, DPO, KTO, and a reward model's.

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

from core.alignment.examples import Encoded

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

    The model's head is applied from `batch.start` on: a prompt's logits are not wanted.
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
    """How far the policy is from the reference, from the `ratios` of `mismatched` replies; no
    gradient goes through it, and it is never below 0."""
    return ratios.detach().mean().clamp(min=0)


def mismatched(sequences: Sequence[Encoded]) -> list[Encoded]:
    """Each prompt with the reply of the prompt before it; the first with the last reply."""
    replies = [sequences[-1].reply, *(one.reply for one in sequences[:-1])]
    return [Encoded(one.prompt, reply) for one, reply in zip(sequences, replies, strict=True)]


def preference(chosen: Tensor, rejected: Tensor) -> Tensor:
    """A reward model's loss, Bradley and Terry's: `chosen` and `rejected` are scores, (pairs,)."""
    return -functional.logsigmoid(chosen - rejected).mean()
