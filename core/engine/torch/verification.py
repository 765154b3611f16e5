"""Checks that the engine computes a model as the model itself does, before the first request.

The same weights are used twice: under the model's own attention, and in the engine's steps, with a
prompt in two pieces, a second sequence beside it, and a single id. The result is kept in a file, so
that only the first start of a model takes the time.
"""

from __future__ import annotations

import hashlib
import json
import logging
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.engine.torch.attention import CacheShape, refused
from core.engine.torch.block_manager import ALL, blocks_for
from core.engine.torch.model_runner import Runner, inputs_of
from core.engine.torch.scheduler import ScheduledChunk
from core.engine.torch.sequence import Sequence
from core.engine_types import GenerationRequest
from core.errors import in_brief
from core.types import Sampling

log = logging.getLogger(__name__)

_LONG, _SHORT, _PIECE = 40, 9, 24
"""Ids of the two sequences, and of the first piece of the long one."""
_BLOCKS = 4
"""Blocks that the two sequences take in each group of layers."""
_WINDOW = 20
"""Windows are cut to this size for the comparison, so that the long sequence is longer."""
_SPREAD = {torch.float32: 0.05}
_SPREAD_OF_HALF = 0.4
"""The largest difference between two logits, in standard deviations of the model's own."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The logits of two sequences by the model itself."""

    ids: tuple[list[int], list[int]]
    logits: tuple[Tensor, Tensor]
    """(ids, vocabulary), float32, on the host."""


@torch.inference_mode()
def reference_of(model: PreTrainedModel, shape: CacheShape) -> Reference:
    """Compute the reference; the model must still have its own attention."""
    vocabulary = model.config.get_text_config().vocab_size
    # the first and the last ids are often special
    every = [5 + index * 7 % max(1, vocabulary - 10) for index in range(_LONG + _SHORT)]
    ids = every[:_LONG], every[_LONG:]
    try:
        with _cut_windows(model, shape):
            logits = [
                model(input_ids=torch.tensor([one], device=model.device), use_cache=False).logits[0]
                for one in ids
            ]
    except Exception as error:
        raise refused(model, f"it fails by itself ({in_brief(error)})") from error
    first, second = (one.float().cpu() for one in logits)
    return Reference(ids, (first, second))


@contextmanager
def _cut_windows(model: PreTrainedModel, shape: CacheShape) -> Iterator[None]:
    config = model.config.get_text_config()
    before: int | None = getattr(config, "sliding_window", None)
    if before is None or not shape.windows:
        yield
        return
    config.sliding_window = min(before, _WINDOW)
    try:
        yield
    finally:
        config.sliding_window = before


@contextmanager
def _cut(windows: Tensor) -> Iterator[None]:
    """Cut the engine's windows, which it reads at each step."""
    before = windows.clone()
    windows[windows < ALL] = windows[windows < ALL].clamp(max=_WINDOW)
    try:
        yield
    finally:
        windows.copy_(before)


def verify(
    model: PreTrainedModel, runner: Runner, reference: Reference, *, step_tokens: int
) -> None:
    """Compare the engine's steps with the reference; ModelError if they fail or differ.

    A step has `step_tokens` ids at most.
    """
    try:
        with _cut(runner.windows):
            compared = list(_compared(runner, reference, step_tokens))
    except Exception as error:
        raise refused(model, in_brief(error)) from error
    spread = _SPREAD.get(model.dtype, _SPREAD_OF_HALF)
    for ours, theirs in compared:
        difference = float((ours - theirs).abs().max() / theirs.std().clamp(min=1e-6))
        if not difference <= spread:  # NaN is a difference, too
            raise refused(model, "its attention has parts that are unknown here")


@torch.inference_mode()
def _compared(
    runner: Runner, reference: Reference, step_tokens: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The logits of the engine and of the model, at the last id of each chunk."""
    long, short = (
        _sequence(ids, first_block, runner.groups)
        for ids, first_block in zip(reference.ids, (0, 3), strict=True)
    )
    piece = min(_PIECE, step_tokens - _SHORT)
    pieces = [min(step_tokens, _LONG - 1 - at) for at in range(piece, _LONG - 1, step_tokens)]
    steps = [[(long, piece), (short, _SHORT)], *([(long, count)] for count in (*pieces, 1))]
    for counts in steps:
        chunks = [ScheduledChunk(sequence, count) for sequence, count in counts]
        ids, positions, last = inputs_of(chunks)
        logits = runner._logits(chunks, ids, positions, last).float().cpu()
        for row, chunk in zip(logits, chunks, strict=True):
            chunk.sequence.computed += chunk.count
            of = reference.logits[0 if chunk.sequence is long else 1]
            yield row, of[chunk.sequence.computed - 1]


def _sequence(ids: list[int], first_block: int, groups: int) -> Sequence:
    request = GenerationRequest("verification", ids, Sampling(0.0), 1, seed=0)
    sequence = Sequence.begin(request, emit=lambda _: None, order=first_block, arrived=0)
    firsts = range(first_block, groups * _BLOCKS, _BLOCKS)
    sequence.tables = [array("i", range(first, first + blocks_for(len(ids)))) for first in firsts]
    return sequence


def is_possible(context_length: int, blocks: int, slots: int) -> bool:
    """Whether the two sequences fit the engine's limits; it has `blocks` for each group."""
    return context_length >= _LONG and blocks >= _BLOCKS and slots > 1


# -- its record -----------------------------------------------------------------------------------

_PACKAGES = ("henji", "torch", "transformers", "numpy")


def record_path(directory: Path, model: PreTrainedModel, **facts: Any) -> Path:
    """The file in `directory` that exists once this model was verified.

    Its name is a digest of `facts`, of the model's configuration and of everything that computes.
    """
    known = {
        **facts,
        "config": model.config.to_json_string(use_diff=False),
        "dtype": str(model.dtype),
        "device": _device(model.device),
        "versions": [version(name) for name in _PACKAGES],
        "code": _code(),
    }
    told = json.dumps(known, sort_keys=True, default=str).encode()
    return directory / hashlib.sha256(told).hexdigest()


def _device(device: torch.device) -> object:
    gpu = device.type == "cuda"
    return torch.cuda.get_device_name(device) if gpu else torch.cpu.get_capabilities()


def _code() -> str:
    """The digest of the engine's own source: a checkout changes without its version."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_recorded(path: Path | None) -> bool:
    return path is not None and path.exists()


def record(path: Path | None) -> None:
    """Record that the comparison succeeded. Without a place for it, the next start compares."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        log.info("the comparison with the model is not kept: %s", in_brief(error))
