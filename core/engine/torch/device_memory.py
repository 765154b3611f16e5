"""The memory of a device: its size, the cache's part of it, and ways to allocate in it."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

_GPU_PART = 0.9
"""The cache's share of the memory that the weights leave; the rest is for activations."""
_CPU_PART = 0.5
"""Lower than on a GPU: other programs use the machine too."""


def cache_bytes(device: torch.device, wanted_gb: float | None) -> int:
    """The bytes of the key-value cache: the setting, or a part of the free memory."""
    if wanted_gb:
        return int(wanted_gb * 1e9)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * _GPU_PART)
    return int(_available_memory() * _CPU_PART)


def lazy_zeros(sizes: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Zeros that take no memory until they are written.

    numpy's zeros use large pages. On a virtual machine, whose host allocates memory at the first
    write, they made the first prompts a quarter slower.
    """
    size = torch.Size(sizes).numel() * dtype.itemsize
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=dtype).view(*sizes)


def pinned(values: Tensor, device: torch.device) -> Tensor:
    """A copy in pinned memory for a GPU: copying other memory may block the host."""
    return values.pin_memory() if device.type == "cuda" else values


def gpu_memory(device: torch.device) -> tuple[int, int] | None:
    """Bytes of the GPU in use by all processes, and its size; None for a CPU."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return total - free, total


def _available_memory() -> int:
    """Bytes of memory available without swapping (Linux's MemAvailable)."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo has no MemAvailable")
