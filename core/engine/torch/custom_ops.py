"""Our kernels as torch operations: torch's compiler does not look into them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

_LIBRARY = cast("Any", torch.library.Library)("henji", "DEF")


def define(
    schema: str, compute: Callable[..., Tensor], shape: Callable[..., Tensor] | None = None
) -> None:
    """Add an operation to `torch.ops.henji`.

    `shape` gives the compiler an empty tensor like the result. The schema marks the arguments that
    the operation writes to.
    """
    _LIBRARY.define(schema)
    for device, function in (("CUDA", compute), ("CPU", compute), ("Meta", shape)):
        if function:
            _LIBRARY.impl(schema.partition("(")[0], function, device)
