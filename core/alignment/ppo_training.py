"""PPO's steps: replies, their scores, and a few rounds of learning from them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.alignment import Options, losses
from core.alignment.datasets import Encoded, Item
from core.alignment.lora import Trainee
from core.alignment.losses import Batch, PpoSettings
from core.alignment.reward import RewardHead
from core.alignment.run import Run
from core.alignment.train import Numbers, chunks, draw_batch
from core.engine.torch import Limits, TorchEngine
from core.engine.torch.attention import CacheShape
from core.engine.torch.block_manager import SIZE
from core.engine_types import GenerationRequest
from core.types import Sampling

# PPO needs the policy's own distribution: nothing may change it
ON_POLICY = Sampling(temperature=1.0)


@dataclass(frozen=True, slots=True)
class RolloutRequest:
    """The prompts of a rollout, and how to generate their replies."""

    prompts: Sequence[tuple[int, ...]]
    longest: int
    """Tokens of a reply, without its end."""
    stop_ids: frozenset[int]
    end: int | None
    """The end token."""
    seed: int
    sampling: Sampling = ON_POLICY


def generate_replies(model: PreTrainedModel, request: RolloutRequest) -> list[Encoded]:
    """A reply to each prompt. The engine takes the model for itself."""
    return asyncio.run(_generate(model, request))


async def _generate(model: PreTrainedModel, request: RolloutRequest) -> list[Encoded]:
    engine = await TorchEngine.open(lambda: model, lambda model: _limits(model, request))
    try:
        return await asyncio.gather(
            *(_generate_reply(engine, request, place) for place in range(len(request.prompts)))
        )
    finally:
        await engine.close()


def _limits(model: PreTrainedModel, request: RolloutRequest) -> Limits:
    """Limits with room for all prompts at once."""
    lengths = [len(prompt) + request.longest for prompt in request.prompts]
    blocks = sum(-(-length // SIZE) + 1 for length in lengths)
    return Limits(
        context_length=max(lengths),
        slots=len(lengths),
        step_tokens=256 if model.device.type == "cpu" else 2048,
        cache_bytes=blocks * SIZE * CacheShape.of(model).bytes_per_token,
    )


async def _generate_reply(engine: TorchEngine, request: RolloutRequest, place: int) -> Encoded:
    generation = GenerationRequest(
        id=str(place),
        prompt=request.prompts[place],
        sampling=request.sampling,
        max_new_tokens=request.longest,
        seed=request.seed + place,
        stop_ids=request.stop_ids,
    )
    ids: list[int] = []
    async for chunk in engine.generate(generation):
        ids += chunk.ids
        ended = chunk.finish_reason == "stop"
    if ended and request.end is not None:
        ids.append(request.end)
    return Encoded(request.prompts[place], tuple(ids))


REWARD = "reward"
"""The name of the reward model's adapter beside the policy's."""


class ValueHead(nn.Module):
    """Estimates the future reward from the policy's hidden states."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.value = nn.Linear(hidden, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(sequences, tokens, hidden) -> (sequences, tokens)"""
        values: Tensor = self.value(hidden.float()).squeeze(-1)
        return values


@dataclass(frozen=True, slots=True)
class Rollout:
    """Replies with their log-probabilities, values and advantages; (replies, tokens)."""

    batch: Batch
    log_probs: Tensor
    values: Tensor
    gains: Tensor
    returns: Tensor


@dataclass(frozen=True, slots=True)
class Policy:
    """The models and settings of a PPO run."""

    trainee: Trainee
    """The policy, its reference, and the reward model's adapter."""
    values: ValueHead
    rewards: RewardHead
    settings: PpoSettings
    options: Options
    stop_ids: frozenset[int]
    end: int | None

    def fit(self, run: Run, items: Sequence[Item]) -> None:
        """Take the remaining steps."""
        while run.step < self.options.steps:
            run.begin_step()
            places = draw_batch(run.step, self.options.batch, len(items), self.options.seed)
            replies = self._generate_replies([items[place].prompt for place in places], run.step)
            rollouts, told = self._evaluate_replies(replies)
            learned = self._learn(run, rollouts)
            run.end_step({**told, **learned})

    def _generate_replies(self, prompts: Sequence[tuple[int, ...]], step: int) -> list[Encoded]:
        seed = (self.options.seed * 1_000_003 + step) * 4096
        request = RolloutRequest(prompts, self.options.reply, self.stop_ids, self.end, seed)
        written = generate_replies(self.trainee.served(), request)
        return [one for one in written if one.reply]

    # -- evaluation of the replies ------------------------------------------------------------

    @torch.no_grad()
    def _evaluate_replies(self, replies: Sequence[Encoded]) -> tuple[list[Rollout], Numbers]:
        batches = [
            Batch.of(some, self.trainee.model.device)
            for some in chunks(replies, self.options.micro)
        ]
        found = [self._evaluate(batch) for batch in batches]
        masks = [batch.mask for batch in batches]
        spread = _whitened([gains for *_, gains in found], masks)
        rollouts = [
            Rollout(batch, policy, values, white, (gains + values) * batch.mask)
            for batch, (policy, values, _, _, gains), white in zip(
                batches, found, spread, strict=True
            )
        ]
        tokens = sum(int(mask.sum()) for mask in masks)
        scores = torch.cat([scores for _, _, scores, _, _ in found])
        distance = sum(float(away.sum()) for _, _, _, away, _ in found)
        ended = sum(one.reply[-1] == self.end for one in replies) / len(replies)
        return rollouts, {
            "reward": scores.mean().item(),
            "kl": distance / len(replies),
            "length": tokens / len(replies),
            "ended": ended,
        }

    def _evaluate(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Log-probabilities, values, scores, distances from the reference, and advantages."""
        model = self.trainee.model
        policy, values = self._forward(batch)
        with self.trainee.as_reference():
            reference = losses.token_log_probs(model, batch)
        with self.trainee.using(REWARD):
            scores = self.rewards(model, batch)
        rewards = losses.rewards(scores, policy, reference, batch.mask, self.settings.kl)
        gains = losses.advantages(rewards, values, batch.mask, self.settings)
        return policy, values, scores, policy - reference, gains

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The policy's log-probabilities, and the values before each token."""
        kept = batch.ids.shape[1] - batch.start
        out = self.trainee.model(
            input_ids=batch.ids, use_cache=False, logits_to_keep=kept, output_hidden_states=True
        )
        values = self.values(out.hidden_states[-1][:, batch.start : -1])
        return losses.log_probs_of(out.logits, batch), values * batch.mask

    # -- learning -----------------------------------------------------------------------------

    def _learn(self, run: Run, rollouts: Sequence[Rollout]) -> Numbers:
        total = sum(int(one.batch.mask.sum()) for one in rollouts)
        for _ in range(self.options.rounds):
            sums = {"loss": 0.0, "value loss": 0.0, "clipped": 0.0}
            for one in rollouts:
                share = int(one.batch.mask.sum()) / total
                for name, value in self._learn_from(one, share).items():
                    sums[name] += share * value
            if not all(torch.isfinite(torch.tensor(list(sums.values())))):
                raise run.not_a_number()
            run.apply()
        return sums

    def _learn_from(self, rollout: Rollout, share: float) -> Numbers:
        new, values = self._forward(rollout.batch)
        mask, settings = rollout.batch.mask, self.settings
        loss = losses.policy_loss(new, rollout.log_probs, rollout.gains, mask, settings.clip)
        value_loss = losses.value_loss(
            values, rollout.values, rollout.returns, mask, settings.value_clip
        )
        total = (loss + settings.value_weight * value_loss) * share
        total.backward()  # type: ignore[no-untyped-call]
        clipped = losses.clipped_share(new.detach(), rollout.log_probs, mask, settings.clip)
        return {
            "loss": loss.item(),
            "value loss": value_loss.item(),
            "clipped": clipped.item(),
        }


def _whitened(gains: Sequence[Tensor], masks: Sequence[Tensor]) -> list[Tensor]:
    """Advantages with mean 0 and variance 1 over the tokens of a whole step."""
    flat = torch.cat([one[mask] for one, mask in zip(gains, masks, strict=True)]).unsqueeze(0)
    white = losses.whitened(flat, torch.ones_like(flat, dtype=torch.bool)).squeeze(0)
    found, start = [], 0
    for one, mask in zip(gains, masks, strict=True):
        spread = torch.zeros_like(one)
        count = int(mask.sum())
        spread[mask] = white[start : start + count]
        found.append(spread)
        start += count
    return found
