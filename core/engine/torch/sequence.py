"""One request in the engine: its ids, and the number that is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from core.engine.torch.block_manager import BlockTable
from core.engine_types import Chunk, GenerationRequest
from core.errors import EngineError
from core.types import FinishReason

Emit: TypeAlias = Callable[[Chunk | EngineError], None]


@dataclass(slots=True, eq=False)
class Sequence:
    """Prompt and reply as one run of ids; the engine's thread alone changes it."""

    request: GenerationRequest
    emit: Emit
    """Called in the engine's thread with each chunk, or with an error."""
    order: int
    """The number of its arrival."""
    arrived: float
    ids: npt.NDArray[np.int64]
    """Prompt and reply, with room for the longest reply; valid up to `length`."""
    length: int
    computed: int = 0
    """The number of ids that have keys and values in the cache."""
    cached: int = 0
    """The number of the prompt's ids that were in the cache when it was first admitted."""
    tables: list[BlockTable] = field(default_factory=list)
    """A block table for each group of layers; empty: the sequence is not running."""
    digests: list[bytes] = field(default_factory=list)
    """The digests of the full blocks, in order; each covers everything before it too."""
    streaming: bool = False
    """Its first chunk has been sent."""
    cancelled: bool = False

    @classmethod
    def begin(cls, request: GenerationRequest, emit: Emit, order: int, arrived: float) -> Sequence:
        length = len(request.prompt)
        ids = np.empty(length + request.max_new_tokens, dtype=np.int64)
        ids[:length] = request.prompt
        return cls(request, emit, order, arrived, ids, length)

    @property
    def pending(self) -> int:
        """Known ids that are not computed: 1 while decoding."""
        return self.length - self.computed

    @property
    def goes_on(self) -> bool:
        """Whether there is room for more than the next token."""
        return not self.cancelled and self.length + 1 < len(self.ids)

    @property
    def reply_length(self) -> int:
        return self.length - len(self.request.prompt)

    def append(self, token: int) -> FinishReason | None:
        """Add a sampled token and send it; the reason if it ended the reply."""
        reason = self._take(token)
        ids = () if reason == "stop" and token in self.request.stop_ids else (token,)
        cached = 0 if self.streaming else self.cached
        self.streaming = True
        self.emit(Chunk(ids=ids, finish_reason=reason, cached_tokens=cached))
        return reason

    def _take(self, token: int) -> FinishReason | None:
        if token in self.request.stop_ids:
            return "stop"
        self.ids[self.length] = token
        self.length += 1
        if any(self._ends_with(run) for run in self.request.stop_sequences):
            return "stop"
        return "length" if self.length == len(self.ids) else None

    def _ends_with(self, run: tuple[int, ...]) -> bool:
        if not 0 < len(run) <= self.reply_length:
            return False
        return tuple(self.ids[self.length - len(run) : self.length].tolist()) == run
