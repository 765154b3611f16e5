"""Steps on a GPU in which every sequence decodes: compiled, and replayed from CUDA graphs.

There is a graph for each of a few batch sizes; within such a step the host waits for nothing but
the sampled tokens. The compiler joins what lies between a block's matrix products into a few
kernels: they are many and short, and with few sequences their launches took a third of a step.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
import torch.fx.experimental._config
from torch import Tensor
from transformers import PreTrainedModel

from core.engine.torch.blocks import SIZE
from core.engine.torch.linear import replace_linear
from core.engine.torch.paged import Layout, PagedCache, PagedStep
from core.engine.torch.row_linear import RowLinear
from core.engine.torch.runner import Ints, Runner, inputs_of
from core.engine.torch.scheduler import Part
from core.engine.torch.sequence import Sequence
from core.records import GenerationRequest
from core.types import Sampling

_SHAPES = cast("Any", torch.fx.experimental._config)


class GraphRunner(Runner):
    """Runs the model, with a captured graph for each of a few numbers of decoding sequences."""

    def __init__(
        self, model: PreTrainedModel, cache: PagedCache, *, places: int, context_length: int
    ) -> None:
        super().__init__(model, cache)
        pages = -(-context_length // SIZE)
        pool = torch.cuda.graph_pool_handle()
        compile_blocks(model)
        graphs = {}
        # The largest first: the others then find their memory in the pool.
        for size in sorted(_buckets(places), reverse=True):
            graphs[size] = _Graph(DecodeStep(model, cache, size, pages), model.device, pool)
        self._graphs = dict(sorted(graphs.items()))
        self._warm_up(cache)

    def _logits(self, parts: list[Part], ids: Ints, positions: Ints, wanted: Ints) -> Tensor:
        if all(part.decodes for part in parts):
            graph = next(graph for size, graph in self._graphs.items() if size >= len(parts))
            return graph.replay(parts, ids, positions)
        # Nobody's reply waits for the compiler: what does not fit runs as it is written.
        with torch.compiler.set_stance("eager_on_recompile"):
            return super()._logits(parts, ids, positions, wanted)

    def _warm_up(self, cache: PagedCache) -> None:
        """Have what prompts need compiled and loaded before anybody waits for it."""
        penalised, cut = Sampling(0.7, repetition_penalty=1.1), Sampling(0.7, top_p=0.9)
        prompts = [_prompt(20, penalised, cache.scratch), _prompt(90, cut, cache.scratch)]
        with compiling():
            super()._logits(prompts, *inputs_of(prompts))
        for some in (prompts, prompts[:1], prompts[1:]):
            self.run(some)


def _prompt(length: int, wish: Sampling, page: int) -> Part:
    request = GenerationRequest("warm-up", [0] * length, wish, 1, seed=0)
    sequence = Sequence.begin(request, emit=print, order=0, arrived=0)
    sequence.blocks.extend([page] * -(-length // SIZE))
    return Part(sequence, length)


def compile_blocks(model: PreTrainedModel) -> None:
    """Have the model's repeated blocks compiled, for any number of ids, when they first run."""
    for module in list(model.modules()):
        if type(module).__name__ in (model._no_split_modules or ()):
            replace_linear(module, RowLinear)
            module.compile(dynamic=True)


@contextmanager
def compiling() -> Iterator[None]:
    """What is compiled for one block serves all of them; what cannot be compiled runs as it is."""
    with (
        # A block's own number is an input like any other, and so is each number of rows: that two
        # of them are equal today says nothing of tomorrow.
        torch._dynamo.config.patch(allow_unspec_int_on_nn_module=True, suppress_errors=True),
        _SHAPES.patch(use_duck_shape=False),
    ):
        yield


def _buckets(places: int) -> set[int]:
    steps = [1, 2, 4, *range(8, 64, 8), *range(64, places, 32)]
    return {size for size in steps if size < places} | {places}


class DecodeStep:
    """A decoding step of up to `size` sequences, whose inputs always lie at the same place.

    Rows that are free write to scratch, and attend to one id there.
    """

    def __init__(self, model: PreTrainedModel, cache: PagedCache, size: int, pages: int) -> None:
        device = cache.pages.device
        self._model = model
        self._scratch = cache.scratch
        # All that changes from step to step in one piece, so that it takes one copy: a row each of
        # ids, positions, slots and lengths, and behind them the tables.
        host = np.zeros(size * (4 + pages), dtype=np.int32)
        self._rows = host[: 4 * size].reshape(4, size)
        self._tables = host[4 * size :].reshape(size, pages)
        self._host = torch.from_numpy(host)
        self._device = self._host.to(device, copy=True)
        ids, positions, slots, lengths = self._device[: 4 * size].view(4, size)
        each = torch.arange(size + 1, dtype=torch.int32, device=device)
        layout = Layout(
            slots=slots,
            tables=self._device[4 * size :].view(size, pages),
            lengths=lengths,
            starts=each,
            tile_sequence=each[:-1],
            tile_first=torch.zeros_like(slots),
        )
        self._ids, self._positions = ids[None], positions[None]
        self._step = PagedStep(cache.pages, layout, tile=1)
        self._every = np.arange(size)
        self._shown: list[tuple[array[int] | None, int]] = [(None, 0)] * size
        self._used = size + 1
        nothing = np.empty(0, dtype=np.int64)
        self.stage([], nothing, nothing)

    def stage(self, parts: list[Part], ids: Ints, positions: Ints) -> None:
        """Let the next run be of these."""
        used = len(parts)
        if used < self._used:
            self._rows[:, used:] = [[0], [0], [self._scratch * SIZE], [1]]
            self._tables[used:, 0] = self._scratch
            self._shown[used:] = [(None, 0)] * (len(self._shown) - used)
        self._used = used
        for row, part in enumerate(parts):
            self._show(row, part.sequence.blocks)
        pages = self._tables[self._every[:used], positions // SIZE]
        rows = self._rows[:, :used]
        rows[0], rows[1], rows[3] = ids, positions, positions + 1
        rows[2] = pages * SIZE + positions % SIZE
        self._device.copy_(self._host, non_blocking=True)

    def _show(self, row: int, blocks: array[int]) -> None:
        # Most tables are those of the last step: a sequence needs a page in sixteen steps.
        shown, count = self._shown[row]
        if shown is not blocks or count != len(blocks):
            self._tables[row, : len(blocks)] = blocks
            self._shown[row] = blocks, len(blocks)

    def run(self) -> Tensor:
        """(size, vocabulary)"""
        with compiling():
            logits: Tensor = self._model(
                input_ids=self._ids, position_ids=self._positions, use_cache=False, step=self._step
            ).logits[0]
        return logits


class _Graph:
    """A decoding step, captured."""

    def __init__(self, step: DecodeStep, device: torch.device, pool: Any) -> None:
        self._step = step
        side: torch.cuda.Stream = cast("Any", torch.cuda.Stream)(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):  # kernels are compiled and chosen before the capture
            for _ in range(2):
                step.run()
        torch.cuda.current_stream(device).wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._logits = step.run()

    def replay(self, parts: list[Part], ids: Ints, positions: Ints) -> Tensor:
        """(parts, vocabulary), valid until the next replay."""
        self._step.stage(parts, ids, positions)
        self._graph.replay()
        return self._logits[: len(parts)]
