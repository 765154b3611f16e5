"""The losses of alignment, against numbers that were worked out by hand."""

from __future__ import annotations

from math import exp, log
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from core.alignment import losses
from core.alignment.datasets import Encoded
from core.alignment.losses import Batch

CPU = torch.device("cpu")
PROBABILITIES = ((0.5, 0.25, 0.125, 0.125), (0.1, 0.2, 0.3, 0.4), (0.25, 0.25, 0.25, 0.25))
"""Of the id after 0, 1 and 2."""


class Bigrams(nn.Module):
    """A language model that looks one id back; its logits are off by a constant."""

    def forward(self, input_ids: Tensor, use_cache: bool, logits_to_keep: int) -> SimpleNamespace:
        table = torch.tensor(PROBABILITIES).log() + 3.0
        return SimpleNamespace(logits=table[input_ids.clamp(max=2)][:, -logits_to_keep:])


SHORT = Encoded((2, 0), (1, 3))
"""0 -> 1 (1/4), 1 -> 3 (4/10)"""
LONG = Encoded((0, 1, 2), (0, 0, 2))
"""2 -> 0 (1/4), 0 -> 0 (1/2), 0 -> 2 (1/8)"""


def test_a_replys_log_probability_is_the_sum_over_its_own_tokens() -> None:
    batch = Batch.of([SHORT, LONG], CPU)
    found = losses.reply_log_probs(Bigrams(), batch)
    assert found.tolist() == pytest.approx([log(0.25 * 0.4), log(0.25 * 0.5 * 0.125)])


def test_other_sequences_of_a_batch_change_nothing() -> None:
    alone = losses.token_log_probs(Bigrams(), Batch.of([SHORT], CPU))
    beside = losses.token_log_probs(Bigrams(), Batch.of([LONG, SHORT], CPU))
    assert alone.tolist() == [pytest.approx([log(0.25), log(0.4)])]
    assert beside[1].tolist() == pytest.approx([log(0.25), log(0.4), 0, 0])


def test_sft_is_the_mean_over_tokens_not_over_replies() -> None:
    batch = Batch.of([SHORT, LONG], CPU)
    found = losses.sft(losses.token_log_probs(Bigrams(), batch), batch.mask)
    assert found.item() == pytest.approx(-log(0.25 * 0.4 * 0.25 * 0.5 * 0.125) / 5)


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def test_dpo_of_two_pairs() -> None:
    found = losses.dpo(torch.tensor([2.0, -0.5]), torch.tensor([-1.0, 0.5]), beta=0.1)
    assert found.item() == pytest.approx(-(log(sigmoid(0.3)) + log(sigmoid(-0.1))) / 2)
    assert found.item() == pytest.approx(0.649376, abs=1e-6)


def test_kto_of_a_liked_and_a_disliked_reply() -> None:
    shift = losses.kto_shift(torch.tensor([0.8, 0.2]))
    assert shift.item() == pytest.approx(0.5)
    ratios, liked = torch.tensor([2.0, -1.0]), torch.tensor([True, False])
    found = losses.kto(ratios, liked, shift, beta=0.1)
    # both are 1.5 nats on the right side
    assert found.item() == pytest.approx(1 - sigmoid(0.15))
    assert found.item() == pytest.approx(0.462570, abs=1e-6)


def test_kto_never_takes_the_policy_for_nearer_than_the_reference_itself() -> None:
    assert losses.kto_shift(torch.tensor([-3.0, 1.0])).item() == 0.0


def test_the_mismatched_replies_are_the_same_ones_one_further() -> None:
    found = losses.mismatched([SHORT, LONG, Encoded((1,), (1,))])
    assert [one.prompt for one in found] == [(2, 0), (0, 1, 2), (1,)]
    assert [one.reply for one in found] == [(1,), (1, 3), (0, 0, 2)]


def test_a_reward_model_loses_a_bit_where_it_cannot_tell() -> None:
    same = torch.tensor([0.7])
    assert losses.preference(same, same).item() == pytest.approx(log(2))
    found = losses.preference(torch.tensor([3.0]), torch.tensor([1.0]))
    assert found.item() == pytest.approx(log(1 + exp(-2)))


# -- one step of PPO, worked out by hand -----------------------------------------------------------
#
# Two replies: one of two tokens with score 1, one of a single token with score -1.

SETTINGS = losses.PpoSettings(
    kl=0.1, clip=0.2, value_clip=0.2, value_weight=0.1, discount=1.0, smoothing=0.5
)
MASK = torch.tensor([[True, True], [True, False]])
OLD = torch.tensor([[-1.0, -2.0], [-0.5, 0.0]])
REFERENCE = torch.tensor([[-1.5, -1.0], [-0.5, 0.0]])
VALUES = torch.tensor([[0.2, 0.4], [-0.6, 9.0]])
"""Ids after a reply's end have no effect."""
SCORES = torch.tensor([1.0, -1.0])

REWARDS = torch.tensor([[-0.05, 0.1 + 1.0], [-1.0, 0.0]])
"""-0.1 (-1 + 1.5), -0.1 (-2 + 1) + 1; -0.1 x 0 - 1"""
ADVANTAGES = torch.tensor([[0.15 + 0.5 * 0.7, 0.7], [-0.4, 0.0]])
"""errors: -0.05 + 0.4 - 0.2 = 0.15 and 1.1 - 0.4 = 0.7; -1 + 0.6 = -0.4"""


def close(found: Tensor, wanted: Tensor) -> bool:
    return torch.allclose(found, wanted, atol=1e-6)


def test_distance_is_paid_for_at_each_token_and_the_score_comes_with_the_last() -> None:
    assert close(losses.rewards(SCORES, OLD, REFERENCE, MASK, SETTINGS.kl), REWARDS)


def test_advantages_are_summed_from_the_end() -> None:
    assert close(losses.advantages(REWARDS, VALUES, MASK, SETTINGS), ADVANTAGES)


def test_whitened_advantages_have_mean_0_and_variance_1_over_the_tokens() -> None:
    found = losses.whitened(ADVANTAGES, MASK)
    # mean 0.8 / 3; deviations 0.7/3, 1.3/3, -2/3; variance 6.18 / 27
    spread = (6.18 / 27) ** 0.5
    wanted = torch.tensor([[0.7 / 3, 1.3 / 3], [-2 / 3, 0.0]]) / spread
    assert close(found, wanted)


def test_a_ratio_out_of_bounds_gains_nothing_more() -> None:
    new = OLD + torch.tensor([[log(1.5), log(0.9)], [log(0.5), 5.0]])
    gains = torch.tensor([[0.5, -1.0], [-0.4, 9.0]])
    # 1.2 x 0.5 (clipped), 0.9 x -1, 0.8 x -0.4 (clipped): the smaller gain each time
    found = losses.policy_loss(new, OLD, gains, MASK, SETTINGS.clip)
    assert found.item() == pytest.approx(-(0.6 - 0.9 - 0.32) / 3)
    assert losses.clipped_share(new, OLD, MASK, SETTINGS.clip).item() == pytest.approx(2 / 3)


def test_a_clipped_token_has_no_gradient() -> None:
    new = (OLD + torch.tensor([[log(1.5), 0.0], [0.0, 0.0]])).requires_grad_()
    losses.policy_loss(new, OLD, torch.ones_like(OLD), MASK, SETTINGS.clip).backward()  # type: ignore[no-untyped-call]
    assert new.grad is not None
    assert new.grad.tolist() == [[0.0, pytest.approx(-1 / 3)], [pytest.approx(-1 / 3), 0.0]]


def test_a_value_that_moved_too_far_is_held_to_where_it_may_be() -> None:
    returns = ADVANTAGES + VALUES * MASK
    assert close(returns, torch.tensor([[0.7, 1.1], [-1.0, 0.0]]))
    new = torch.tensor([[0.7, 0.5], [-0.7, 0.0]])
    # errors: max(0, 0.7 - 0.4) = 0.3; 0.6 (moved by 0.1); 0.3 (moved by 0.1)
    found = losses.value_loss(new, VALUES, returns, MASK, SETTINGS.value_clip)
    assert found.item() == pytest.approx(0.5 * (0.09 + 0.36 + 0.09) / 3)
