"""Sampling, held against transformers' own processors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from core.engine.torch.sampler import SamplingBatch, sample, uniform
from core.engine.torch.sequence import Sequence
from core.engine_types import GenerationRequest
from core.types import Sampling

DRAWS = 2_000


def _sequence(sampling: Sampling, prompt: list[int], seed: int) -> Sequence:
    request = GenerationRequest("r", prompt, sampling, 8, seed)
    return Sequence.begin(request, emit=lambda _: None, order=seed, arrived=0.0)


def _expected(sampling: Sampling, prompt: list[int], logits: torch.Tensor) -> torch.Tensor:
    """The probabilities that `generate` draws from."""
    steps = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    steps.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    scores: torch.FloatTensor = logits.clone()[None].float()  # type: ignore[assignment]  # its stubs
    ids: torch.LongTensor = torch.tensor([prompt])  # type: ignore[assignment]  # ask for subclasses
    return steps(ids, scores)[0].softmax(-1)


@pytest.mark.parametrize("vocabulary", [601, 600])  # a prime, which divides into no stretches
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.7, repetition_penalty=1.3),
        Sampling(temperature=1.3, top_k=7),
        Sampling(temperature=0.9, top_p=0.8),
        Sampling(temperature=3.0, top_p=0.99),
        Sampling(temperature=1.0, top_k=40, top_p=0.7, repetition_penalty=0.8),
    ],
)
def test_draws_fall_as_transformers_would_have_them(sampling: Sampling, vocabulary: int) -> None:
    torch.manual_seed(3)
    logits = torch.randn(vocabulary) * 3
    prompt = torch.randint(vocabulary, (50,)).tolist()
    sequences = [_sequence(sampling, prompt, seed) for seed in range(DRAWS)]
    batch = SamplingBatch.of(sequences, torch.device("cpu"))
    tokens = sample(logits.expand(DRAWS, -1).clone(), batch)
    drawn = torch.bincount(tokens, minlength=vocabulary) / DRAWS
    expected = _expected(sampling, prompt, logits)
    assert not (drawn[expected == 0] > 0).any()
    spread = (expected * (1 - expected) / DRAWS).sqrt()
    assert ((drawn - expected).abs() < 5 * spread + 2 / DRAWS).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=6), st.integers(0, 2**31))
def test_a_row_s_token_does_not_depend_on_the_rows_beside_it(
    temperatures: list[float], seed: int
) -> None:
    logits = torch.randn(len(temperatures), 300, generator=torch.Generator().manual_seed(seed))
    sequences = [
        _sequence(Sampling(heat, 0.9 if row % 2 else 1.0, 5 if row % 3 else 0), [row, 5], seed)
        for row, heat in enumerate(temperatures)
    ]
    device = torch.device("cpu")
    together = sample(logits.clone(), SamplingBatch.of(sequences, device)).tolist()
    alone = [
        int(sample(logits[row : row + 1].clone(), SamplingBatch.of([one], device)))
        for row, one in enumerate(sequences)
    ]
    assert together == alone


def test_uniform_numbers_are_spread_evenly_over_seeds_and_places() -> None:
    numbers = torch.tensor([uniform(seed, place) for seed in range(100) for place in range(100)])
    assert 0 <= float(numbers.min()) < float(numbers.max()) < 1
    assert torch.histc(numbers, bins=10, min=0, max=1).sub(1_000).abs().max() < 150


def test_the_next_sampling_is_the_same_before_the_tokens_are_known() -> None:
    sequences = [
        _sequence(Sampling(0.7, repetition_penalty=1.1), [3, 4, 5], seed=1),
        _sequence(Sampling(0.9, top_k=5), [6], seed=2),
    ]
    tokens = torch.tensor([8, 9])
    ahead = SamplingBatch.of(sequences, tokens.device).after(tokens, sequences)
    for sequence, token in zip(sequences, tokens.tolist(), strict=True):
        sequence.append(token)
    known = SamplingBatch.of(sequences, tokens.device)
    assert ahead.draw.equal(known.draw)
    assert ahead.seen is not None
    assert known.seen is not None
    assert [set(row) for row in ahead.seen.tolist()] == [set(row) for row in known.seen.tolist()]


@pytest.mark.parametrize("vocabulary", [601, 600])
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_a_row_that_is_not_finite_has_no_token_and_changes_no_other(
    wrong: float, vocabulary: int
) -> None:
    torch.manual_seed(3)
    ways = [Sampling(0.0), Sampling(1.0), Sampling(1.0, top_k=5), Sampling(1.0, top_p=0.9)]
    for penalty in (1.0, 1.1):
        sequences = [
            _sequence(replace(way, repetition_penalty=penalty), [5, 6, 7], seed)
            for seed, way in enumerate(ways * 2)
        ]
        batch = SamplingBatch.of(sequences, torch.device("cpu"))
        logits = torch.randn(len(sequences), vocabulary)
        expected = sample(logits.clone(), batch)
        logits[: len(ways), 5] = wrong
        tokens = sample(logits, batch)
        assert tokens[: len(ways)].tolist() == [-1] * len(ways)
        assert tokens[len(ways) :].tolist() == expected[len(ways) :].tolist()
        assert int(expected.min()) >= 0
        assert int(expected.max()) < vocabulary
