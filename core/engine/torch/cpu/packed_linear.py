"""Linear layers with weights in the CPU's fastest layout."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

_ROWS = 64
"""The number of rows that oneDNN chooses a layout for: it suits one row and hundreds too."""


_REDUCE_RANGE = not torch.cpu._is_vnni_supported()
"""Without VNNI, products are summed in 16 bits: inputs of eight would be 15 % off, of seven 2."""


class PackedLinear(nn.Module):
    """`nn.Linear` with its weight laid out for oneDNN.

    torch's own product reads the weights slowly for few rows: on two AVX-512 cores, eight rows
    through 110 million float32 weights take 22 ms here and 56 ms in `nn.Linear`.
    """

    _weight: Tensor
    _bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.data, _ROWS)
        self.register_buffer("_weight", packed, persistent=False)
        bias = None if linear.bias is None else linear.bias.data
        self.register_buffer("_bias", bias, persistent=False)
        self._product = _packed_product()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)"""
        out: Tensor = self._product(x, self._weight, self._bias)
        return out


@cache
def _packed_product() -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """torch's product with a packed weight.

    It is written in the trace's own language: the operation takes an empty list of numbers, which
    has no type when Python passes it.
    """
    graph = torch._C.parse_ir("""
        graph(%x : Tensor, %weight : Tensor, %bias : Tensor?):
          %then : str = prim::Constant[value="none"]()
          %by : Scalar?[] = prim::ListConstruct()
          %how : str = prim::Constant[value=""]()
          %out : Tensor = mkldnn::_linear_pointwise(%x, %weight, %bias, %then, %by, %how)
          return (%out)
    """)
    product: Any = torch._C._create_function_from_graph("packed_product", graph)
    return cast("Callable[[Tensor, Tensor, Tensor | None], Tensor]", product)


class Int8Linear(nn.Module):
    """`nn.Linear` in int8: a scale for each output, and one for each row of the input.

    torch's operation has one scale for all rows. So each row is divided by its largest number, and
    a row of -1 and 1 beside them fixes the common range: no row depends on those beside it.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.data.float()
        scales = weight.abs().amax(1).clamp_(min=1e-12).double() / 127
        zeros = torch.zeros(len(scales), dtype=torch.long)
        with warnings.catch_warnings():  # the interface is deprecated after torch 2.13
            warnings.simplefilter("ignore")
            rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        self._packed = torch.ops.quantized.linear_prepack(rounded, None)
        bias = None if linear.bias is None else linear.bias.data.float()
        self.register_buffer("_bias", bias, persistent=False)
        span = torch.zeros(1, weight.shape[1])
        span[0, 0], span[0, -1] = 1.0, -1.0
        self.register_buffer("_range", span, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)"""
        rows = x.reshape(-1, x.shape[-1]).float()
        largest = rows.abs().amax(1, keepdim=True).clamp(min=1e-12)
        whole = torch.cat((rows / largest, self._range))
        out = torch.ops.quantized.linear_dynamic(whole, self._packed, reduce_range=_REDUCE_RANGE)
        result: Tensor = out[:-1] * largest
        if self._bias is not None:
            result = result + self._bias
        return result.to(x.dtype).view(*x.shape[:-1], -1)

    _bias: Tensor | None
    _range: Tensor


def pack_linears(model: PreTrainedModel, *, int8: bool = False) -> None:
    """Repack every linear layer of a model on a CPU, where its precision has kernels."""
    if not int8 and not _has_kernels(model.dtype):
        return
    replace_linear(model, Int8Linear if int8 else PackedLinear)


def replace_linear(module: nn.Module, kind: Callable[[nn.Linear], nn.Module]) -> None:
    """Replace every linear layer inside a module."""
    for name, inner in list(module.named_modules()):
        if type(inner) is nn.Linear:
            module.set_submodule(name, kind(inner))


def _has_kernels(dtype: torch.dtype) -> bool:
    if not torch._C._has_mkldnn:
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32
