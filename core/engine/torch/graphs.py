"""Steps on a GPU in which every sequence decodes: compiled, and replayed from CUDA graphs.

There is a graph for each of a few batch sizes; within such a step the host waits for nothing but
the sampled tokens. The compiler joins what lies between a block's matrix products into a few
kernels: they are many and short, and with few sequences their launches took a third of a step.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.engine.torch.blocks import SIZE
from core.engine.torch.paged import Layout, PagedCache, PagedStep
from core.engine.torch.runner import Ints, Runner
from core.engine.torch.scheduler import Part


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

    def _logits(self, parts: list[Part], ids: Ints, positions: Ints, wanted: Ints) -> Tensor:
        if all(part.decodes for part in parts):
            graph = next(graph for size, graph in self._graphs.items() if size >= len(parts))
            return graph.replay(parts, ids, positions)
        with torch.compiler.set_stance("force_eager"):  # prompts come in too many shapes
            return super()._logits(parts, ids, positions, wanted)


def compile_blocks(model: PreTrainedModel) -> None:
    """Have the model's repeated blocks compiled, for any number of ids, when they first run."""
    for module in model.modules():
        if type(module).__name__ in (model._no_split_modules or ()):
            module.compile(dynamic=True)


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
        host = torch.zeros(size * (4 + pages), dtype=torch.int32, pin_memory=device.type == "cuda")
        self._host, self._device = host, host.to(device)
        rows, tables = host.numpy()[: 4 * size], host.numpy()[4 * size :]
        self._rows, self._tables = rows.reshape(4, size), tables.reshape(size, pages)
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
        nothing = np.empty(0, dtype=np.int64)
        self.stage([], nothing, nothing)

    def stage(self, parts: list[Part], ids: Ints, positions: Ints) -> None:
        """Let the next run be of these."""
        used = len(parts)
        self._rows[:, used:] = [[0], [0], [self._scratch * SIZE], [1]]
        self._tables[used:, 0] = self._scratch
        for table, part in zip(self._tables, parts, strict=False):
            table[: len(part.sequence.blocks)] = part.sequence.blocks
        pages = self._tables[np.arange(used), positions // SIZE]
        self._rows[:, :used] = ids, positions, pages * SIZE + positions % SIZE, positions + 1
        self._device.copy_(self._host, non_blocking=True)

    def run(self) -> Tensor:
        """(size, vocabulary)"""
        # Blocks differ in their number alone: as an input like any other, it lets what was
        # compiled for one of them serve them all.
        with torch._dynamo.config.patch(allow_unspec_int_on_nn_module=True):
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
