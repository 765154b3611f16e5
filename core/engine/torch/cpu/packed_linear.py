"""Linear layers with weights in the CPU's fastest layout."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

_ROWS = 64
"""The number of rows that oneDNN chooses a layout for: it suits one row and hundreds too."""


_TOP = 127 if torch.cpu._is_vnni_supported() else 63
"""The largest rounded input. Without VNNI, products are summed in 16 bits: 127 would overflow."""


def _like(weight: Tensor) -> Tensor:
    """Zeros in the shape of a weight, without its memory: some models ask for its precision."""
    return weight.new_zeros(()).expand(weight.shape)


class PackedLinear(nn.Module):
    """`nn.Linear` with its weight laid out for oneDNN.

    torch's own product reads the weights slowly for few rows: on two AVX-512 cores, eight rows
    through 110 million float32 weights take 22 ms here and 56 ms in `nn.Linear`.
    """

    _weight: Tensor
    _bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", _like(linear.weight.data), persistent=False)
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

    Rows are rounded here, each by its own largest number: no row depends on those beside it.
    oneDNN's product then has one scale for all of them.
    """

    _weight: Tensor
    _scales: Tensor
    _zeros: Tensor
    _bias: Tensor
    _middle: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", _like(linear.weight.data), persistent=False)
        weight = linear.weight.data.float()
        scales = weight.abs().amax(1).clamp_(min=1e-12) / 127
        rounded = (weight / scales[:, None]).round_().to(torch.int8)
        bias = torch.zeros(1) if linear.bias is None else linear.bias.data.float()
        for name, values in (
            ("_weight", torch.ops.onednn.qlinear_prepack(rounded, None)),
            ("_scales", scales / _TOP),
            ("_zeros", torch.zeros(len(scales), dtype=torch.int32)),
            ("_bias", bias),
            # inputs are unsigned, and a conversion to whole numbers cuts their fraction
            ("_middle", torch.tensor(_TOP + 1.5)),
        ):
            self.register_buffer(name, values, persistent=False)
        self._product = _int8_product()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)"""
        rows = x.reshape(-1, x.shape[-1]).float()
        largest = torch.linalg.vector_norm(rows, float("inf"), 1, keepdim=True).clamp_(min=1e-12)
        rounded = torch.addcmul(self._middle, rows, _TOP / largest).to(torch.uint8)
        out = self._product(rounded, _TOP + 1, self._weight, self._scales, self._zeros)
        result: Tensor = torch.addcmul(self._bias, out, largest)
        return result.to(x.dtype).view(*x.shape[:-1], -1)


@cache
def _int8_product() -> Callable[..., Tensor]:
    """torch's product of inputs with a scale of 1 and a packed weight, float32; see above."""
    graph = torch._C.parse_ir("""
        graph(%x : Tensor, %zero : int, %weight : Tensor, %scales : Tensor, %zeros : Tensor):
          %one : float = prim::Constant[value=1.]()
          %none : int = prim::Constant[value=0]()
          %float32 : int = prim::Constant[value=6]()
          %bias : Tensor? = prim::Constant()
          %then : str = prim::Constant[value="none"]()
          %by : Scalar?[] = prim::ListConstruct()
          %how : str = prim::Constant[value=""]()
          %out : Tensor = onednn::qlinear_pointwise(%x, %one, %zero, %weight, %scales, %zeros,
            %bias, %one, %none, %float32, %then, %by, %how)
          return (%out)
    """)
    product: Any = torch._C._create_function_from_graph("int8_product", graph)
    return cast("Callable[..., Tensor]", product)


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
