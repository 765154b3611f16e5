"""Steps on a GPU: compiled, and replayed from CUDA graphs.

There are graphs for some numbers of sequences that decode, and for some numbers of ids of steps
with prompts. A step costs the host one launch: launching its kernels one by one took 23 ms in 36
layers, however short the prompt. The compiler fuses the operations between a block's matrix
products into a few kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.fx.experimental._config
from torch import Tensor
from transformers import PreTrainedModel

from core.engine.torch.block_manager import SIZE
from core.engine.torch.cpu.packed_linear import replace_linear
from core.engine.torch.gpu.gemv_linear import RowLinear
from core.engine.torch.gpu.paged_attention import PagedCache
from core.engine.torch.gpu.step_inputs import DecodeStep, MixedStep, Step, only_decodes
from core.engine.torch.model_runner import Ints, Runner, warm_up_sequence
from core.engine.torch.scheduler import ScheduledChunk
from core.types import Sampling

_SHAPES = cast("Any", torch.fx.experimental._config)


class GraphRunner(Runner):
    """Runs the model from captured graphs."""

    runs_ahead = True

    def __init__(
        self,
        model: PreTrainedModel,
        cache: PagedCache,
        *,
        slots: int,
        step_tokens: int,
        context_length: int,
    ) -> None:
        self.windows, self.groups = cache.windows, len(cache.groups)
        columns = cache.columns(context_length, max(step_tokens, slots))
        compile_blocks(model)
        pool = torch.cuda.graph_pool_handle()

        def captured(sizes: list[int], step: Callable[[int], Step]) -> dict[int, _Graph]:
            # the largest first: the others reuse its memory in the pool
            graphs = {size: _Graph(step(size), model.device, pool) for size in reversed(sizes)}
            return dict(sorted(graphs.items()))

        self._decoding = captured(
            decode_sizes(slots), lambda size: DecodeStep(model, cache, size, columns)
        )
        self._mixed = captured(
            mixed_sizes(max(step_tokens, slots)),
            lambda size: MixedStep(model, cache, size, min(size, slots), columns),
        )
        self._warm_up(cache)

    def _logits(
        self, chunks: list[ScheduledChunk], ids: Ints | Tensor, positions: Ints, wanted: Ints
    ) -> Tensor:
        graphs = self._decoding if only_decodes(chunks, ids, wanted) else self._mixed
        graph = next(graph for size, graph in graphs.items() if size >= len(ids))
        return graph.replay(chunks, ids, positions, wanted)

    def _warm_up(self, cache: PagedCache) -> None:
        """Load the sampler's kernels before the first request."""
        penalised, cut = Sampling(0.7, repetition_penalty=1.1), Sampling(0.7, top_p=0.9)
        prompts = [
            ScheduledChunk(warm_up_sequence(wish, self.groups, cache.scratch), SIZE)
            for wish in (penalised, cut)
        ]
        for some in (prompts, prompts[:1], prompts[1:]):
            self.run(some)


def decode_sizes(slots: int) -> list[int]:
    """Numbers of sequences to capture, up to `slots`."""
    steps = [1, 2, 4, *range(8, 64, 8), *range(64, slots, 32)]
    return [*(size for size in steps if size < slots), slots]


def mixed_sizes(most: int) -> list[int]:
    """Numbers of ids to capture, up to `most`.

    Up to some 256 ids, reading the weights takes all the time. Above, padding costs time too: it is
    a quarter at most.
    """
    sizes = [32, 64, 128]
    for size in (256 << n for n in range(most.bit_length())):
        sizes += [size * quarters // 4 for quarters in (4, 5, 6, 7)]
    return [*(size for size in sizes if size < most), most]


def compile_blocks(model: PreTrainedModel) -> None:
    """Compile the model's repeated blocks, for any number of ids, when they first run."""
    for module in list(model.modules()):
        if type(module).__name__ in (model._no_split_modules or ()):
            replace_linear(module, RowLinear)
            module.compile(dynamic=True)


@contextmanager
def compiling() -> Iterator[None]:
    """One compilation serves all blocks; a block that cannot be compiled runs eagerly."""
    with (
        # A block's index and each number of rows are inputs like any other: two that are equal in
        # the first step may differ in the next.
        torch._dynamo.config.patch(allow_unspec_int_on_nn_module=True, suppress_errors=True),
        _SHAPES.patch(use_duck_shape=False),
    ):
        yield


class _Graph:
    """A captured step."""

    def __init__(self, step: Step, device: torch.device, pool: Any) -> None:
        self._step = step
        side: torch.cuda.Stream = cast("Any", torch.cuda.Stream)(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with compiling():
            with torch.cuda.stream(side):  # kernels are compiled and chosen before the capture
                for _ in range(2):
                    step.run()
            torch.cuda.current_stream(device).wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, pool=pool):
                self._logits = step.run()

    def replay(
        self, chunks: list[ScheduledChunk], ids: Ints | Tensor, positions: Ints, wanted: Ints
    ) -> Tensor:
        """(wanted, vocabulary), valid until the next replay."""
        self._step.stage(chunks, ids, positions, wanted)
        self._graph.replay()
        return self._logits[: len(wanted)]
