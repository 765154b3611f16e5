"""Training on given examples: SFT, DPO, KTO and reward models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from core.alignment import Options, losses
from core.alignment.datasets import Encoded, Item
from core.alignment.lora import Trainee
from core.alignment.losses import Batch
from core.alignment.reward import RewardHead
from core.alignment.run import Run

T = TypeVar("T")

Numbers = dict[str, float]


class Objective(Protocol):
    """The function to minimise."""

    def __call__(self, places: Sequence[int]) -> tuple[Tensor, Numbers]:
        """The loss of the items at these places, and the numbers to report: means over them."""
        ...


def draw_batch(step: int, batch: int, count: int, seed: int) -> list[int]:
    """The indices of a step's items: one random order of all items after another."""
    places = range(step * batch, (step + 1) * batch)
    return [_order(place // count, count, seed)[place % count] for place in places]


def _order(epoch: int, count: int, seed: int) -> list[int]:
    random = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=random).tolist()


def split(items: Sequence[Item], share: float, seed: int) -> tuple[list[Item], list[Item]]:
    """The items to train on, and those held out; of too few items, none is held out.

    Examples of one prompt stay together.
    """
    prompts = sorted({item.prompt for item in items})
    count = int(len(prompts) * share)
    if count < 2:
        return list(items), []
    kept = {prompts[place] for place in _order(0, len(prompts), seed)[count:]}
    return (
        [item for item in items if item.prompt in kept],
        [item for item in items if item.prompt not in kept],
    )


def objective_for(
    trainee: Trainee,
    head: RewardHead | None,
    items: Sequence[Item],
    options: Options,
) -> Objective:
    """The objective of the options' method over `items`."""
    if head is not None:
        return Preference(trainee, items, head)
    if options.method == "sft":
        return Sft(trainee, items)
    kind = Dpo if options.method == "dpo" else Kto
    return kind(trainee, items, options)


def fit(run: Run, objective: Objective, count: int) -> None:
    """Take the remaining steps."""
    options = run.options
    while run.step < options.steps:
        run.begin_step()
        places = draw_batch(run.step, min(options.batch, count), count, options.seed)
        numbers: list[tuple[int, Numbers]] = []
        for some in chunks(places, options.micro):
            loss, told = objective(some)
            (loss * (len(some) / len(places))).backward()  # type: ignore[no-untyped-call]
            numbers.append((len(some), {"loss": loss.item(), **told}))
        if not all(torch.isfinite(torch.tensor([told["loss"] for _, told in numbers]))):
            raise run.not_a_number()
        run.apply()
        run.end_step(_mean(numbers))


@torch.no_grad()
def evaluate(objective: Objective, count: int, options: Options) -> Numbers:
    """The numbers of held-out items."""
    numbers = []
    for some in chunks(range(count), options.micro):
        loss, told = objective(some)
        numbers.append((len(some), {"loss": loss.item(), **told}))
    return _mean(numbers)


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """The items, at most `size` at a time."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def _mean(numbers: Sequence[tuple[int, Mapping[str, float]]]) -> Numbers:
    """Means, weighted by the number of items; a key may be missing from some."""
    found = {}
    for name in dict.fromkeys(name for _, told in numbers for name in told):
        parts = [(weight, told[name]) for weight, told in numbers if name in told]
        total = sum(weight for weight, _ in parts)
        found[name] = sum(weight * value for weight, value in parts) / total
    return found


class Reference:
    """The log-probabilities of items' replies under the reference, computed once."""

    def __init__(self, trainee: Trainee, items: Sequence[Item]) -> None:
        self._trainee, self._items = trainee, items
        self._ask = cache(self._computed)

    def __call__(self, places: Sequence[int]) -> Tensor:
        """(replies of an item, items)"""
        return torch.stack([self._ask(place) for place in places], dim=1)

    def _computed(self, place: int) -> Tensor:
        # each item by itself: in a batch it would differ in its last bits, and a resumed run has it
        # in another batch
        batch = Batch.of(self._items[place].replies, self._trainee.model.device)
        with self._trainee.as_reference():
            return losses.reply_log_probs(self._trainee.model, batch)


class Sft:
    """Supervised fine-tuning: the replies as they are."""

    def __init__(self, trainee: Trainee, items: Sequence[Item]) -> None:
        self._model, self._items = trainee.model, items

    def __call__(self, places: Sequence[int]) -> tuple[Tensor, Numbers]:
        batch = Batch.of([self._items[place].replies[0] for place in places], self._model.device)
        tokens = losses.token_log_probs(self._model, batch)
        length = batch.mask.sum().item() / len(places)
        return losses.sft(tokens, batch.mask), {"length": length}


def pairs(items: Sequence[Item], places: Sequence[int], device: torch.device) -> Batch:
    """The better replies of items, and then the worse ones."""
    found = [items[place].replies for place in places]
    return Batch.of([both[number] for number in (0, 1) for both in found], device)


def length_of(items: Sequence[Item], places: Sequence[int]) -> float:
    """The mean length of the first replies, in tokens."""
    return sum(len(items[place].replies[0].reply) for place in places) / len(places)


class Dpo:
    """Direct preference optimization: the better of two replies."""

    def __init__(self, trainee: Trainee, items: Sequence[Item], options: Options) -> None:
        self._model, self._items, self._beta = trainee.model, items, options.beta
        self._reference = Reference(trainee, items)

    def __call__(self, places: Sequence[int]) -> tuple[Tensor, Numbers]:
        batch = pairs(self._items, places, self._model.device)
        found = losses.reply_log_probs(self._model, batch)
        chosen, rejected = found.view(2, -1) - self._reference(places)
        margin = self._beta * (chosen - rejected)
        return losses.dpo(chosen, rejected, self._beta), {
            "accuracy": (margin > 0).float().mean().item(),
            "margin": margin.mean().item(),
            # how much likelier the replies became: if both fall, neither is generated any more
            "chosen": chosen.mean().item(),
            "rejected": rejected.mean().item(),
            "length": length_of(self._items, places),
        }


class Kto:
    """Kahneman-Tversky optimization: each reply by itself, liked or not."""

    def __init__(self, trainee: Trainee, items: Sequence[Item], options: Options) -> None:
        self._trainee, self._items, self._beta = trainee, items, options.beta
        self._reference = Reference(trainee, items)

    def __call__(self, places: Sequence[int]) -> tuple[Tensor, Numbers]:
        model = self._trainee.model
        replies = [self._items[place].replies[0] for place in places]
        found = losses.reply_log_probs(model, Batch.of(replies, model.device))
        ratios = found - self._reference(places)[0]
        liked = torch.tensor([self._items[place].liked for place in places], device=found.device)
        shift = losses.kto_shift(self._mismatched(replies))
        right = torch.where(liked, ratios > shift, ratios < shift)
        numbers = {
            "accuracy": right.float().mean().item(),
            "kl": shift.item(),
            "length": length_of(self._items, places),
        }
        for name, some in (("liked", ratios[liked]), ("disliked", ratios[~liked])):
            if len(some):
                numbers[name] = some.mean().item()
        return losses.kto(ratios, liked, shift, self._beta), numbers

    @torch.no_grad()
    def _mismatched(self, replies: Sequence[Encoded]) -> Tensor:
        model = self._trainee.model
        batch = Batch.of(losses.mismatched(replies), model.device)
        found = losses.reply_log_probs(model, batch)
        with self._trainee.as_reference():
            return found - losses.reply_log_probs(model, batch)


class Preference:
    """A score for each reply, so that the better one's is higher."""

    def __init__(self, trainee: Trainee, items: Sequence[Item], head: RewardHead) -> None:
        self._model, self._items, self._head = trainee.model, items, head

    def __call__(self, places: Sequence[int]) -> tuple[Tensor, Numbers]:
        batch = pairs(self._items, places, self._model.device)
        chosen, rejected = self._head.raw(self._model, batch).chunk(2)
        return losses.preference(chosen, rejected), {
            "accuracy": (chosen > rejected).float().mean().item(),
            "margin": (chosen - rejected).mean().item(),
            "length": length_of(self._items, places),
        }
