"""The engine's CPU kernels over pages, in Numba.

One attends for the ids that decode; one gathers the keys and values that a piece of a prompt
attends to.

torch's own operations need contiguous keys and values: pages would be copied at every step, or
conversations moved as they grow. Numba's wheels contain their compiler; a host needs none.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,call-arg,attr-defined"
# Numba reads this source itself, and takes its types from the signature.

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from core.engine.torch.block_manager import SIZE as PAGE
from core.errors import in_brief

log = logging.getLogger(__name__)

# torch uses OpenMP's thread pool too: two pools would compete for the cores.
numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]

_NUMBERS = {torch.float32: types.float32, torch.bfloat16: types.uint16}
"""bfloat16 is the upper half of a float32. Numba has no such type and sees its bits."""
_FAST = {"reassoc", "contract", "nsz", "arcp"}
"""Sums may be reordered. Infinite and NaN values stay infinite and NaN."""
_LINE = 64
"""Bytes of a cache line."""
_LEAST = np.float32(-1e30)
"""Less than any score."""
_OPTIONS: Any = {"nogil": True, "fastmath": _FAST, "error_model": "numpy"}
_WITHIN = {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Python never calls these functions: without wrappers the kernels are compiled a tenth sooner."""
_inlined = njit(**(_OPTIONS | _WITHIN))


def keep_compiled(directory: Path) -> None:
    """Keep compiled kernels in `directory`: compiling them takes ten seconds of a processor.

    Numba keeps them apart by its version and the processor; this adds the kernels' source. A
    directory that is set already, by NUMBA_CACHE_DIR say, stays.
    """
    if numba.config.CACHE_DIR:
        return
    version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    kept = directory / version
    with contextlib.suppress(OSError):
        kept.mkdir(parents=True, exist_ok=True)
    numba.config.CACHE_DIR = str(kept) if os.access(kept, os.W_OK) else ""


def _compile(function: Callable[..., None], signature: Any) -> Callable[..., None]:
    kernel: Callable[..., None]
    if kept := numba.config.CACHE_DIR:
        try:
            kernel = njit(signature, parallel=True, cache=True, **_OPTIONS)(function)
        except Exception as error:  # a broken file, or a full disk
            log.info("the compiled kernels cannot be kept: %s", in_brief(error))
            shutil.rmtree(kept, ignore_errors=True)
        else:
            return kernel
    kernel = njit(signature, parallel=True, **_OPTIONS)(function)
    return kernel


@cache
def attend_paged_for(dtype: torch.dtype, size: int) -> Callable[..., None]:
    """The kernel for pages of float32 or bfloat16, compiled here so that no reply waits for it.

    It is compiled for heads of one size: loops of a known length take a tenth less.
    """

    def attend_paged(
        query,  # (ids, heads, size)
        key,  # (ids, key heads, size)
        value,
        pages,  # (pages, key heads, 2, PAGE, size): keys and values
        out,  # like query
        at,  # (sequences,): of the step's ids, the one of each sequence
        tables,  # (sequences, pages): which page holds each stretch of PAGE ids
        lengths,  # (sequences,): ids of each sequence, the step's own included
        window,  # ids to attend to, the newest ones
        scale,
        cap,  # of scores; 0: none
        sinks,  # (heads,), or none
        shares,  # parts that the heads are divided into
    ):
        """Keep the key and value of one id a sequence, and attend to them and those before them.

        All shares have the same amount of work, however long the sequences.
        """
        key_heads = pages.shape[1]
        for task in prange(shares * len(at)):
            share, sequence = np.int64(task) // len(at), np.int64(task) % len(at)
            first, end = key_heads * share // shares, key_heads * (share + 1) // shares
            nth = at[sequence]
            _attend_one(
                size, query[nth], key[nth], value[nth], pages, out[nth],
                tables[sequence], lengths[sequence], window, scale, cap, sinks, first, end,
            )  # fmt: skip

    number = _NUMBERS[dtype]
    rows, ints = number[:, :, :], types.int32
    signature = types.void(
        rows, rows, rows, number[:, :, :, :, ::1], rows,
        types.int64[::1], ints[:, ::1], ints[::1], types.int64,
        types.float32, types.float32, types.float32[::1], types.int64,
    )  # fmt: skip
    return _compile(attend_paged, signature)


@cache
def keep_paged_for(dtype: torch.dtype) -> Callable[..., None]:
    """The kernel that keeps a piece's keys and values, compiled at once."""
    ids, pages = _NUMBERS[dtype][:, :, :, ::1], _NUMBERS[dtype][:, :, :, :, ::1]
    signature = types.void(ids, pages, types.int32[::1], types.int64, ids)
    return _compile(_keep_paged, signature)


def _keep_paged(
    new,  # (2, key heads, ids, size): keys and values
    pages,  # (pages, key heads, 2, PAGE, size)
    table,  # (pages of the sequence,)
    start,  # the first id's position
    known,  # (2, key heads, ids of whole pages, size)
):
    """Keep the keys and values of consecutive ids, and gather all of the sequence's in `known`.

    With an empty `known` they are only kept. Otherwise `known` ends in zeros.
    """
    _, key_heads, ids, size = new.shape
    end, whole = start + ids, known.shape[2]
    given, kept, gathered = new.reshape(-1), pages.reshape(-1), known.reshape(-1)
    first = 0 if whole else start // PAGE
    for nth in prange(first, -(-end // PAGE)):
        begin = nth * PAGE
        fresh, after = max(start, begin), min(end, begin + PAGE)
        for head in range(key_heads):
            for half in range(2):
                page = ((table[nth] * key_heads + head) * 2 + half) * PAGE * size
                row = half * key_heads + head
                if after > fresh:
                    at = page + (fresh - begin) * size
                    count = (after - fresh) * size
                    _copy(given, (row * ids + fresh - start) * size, kept, at, count)
                if whole:
                    at, count = (row * whole + begin) * size, (after - begin) * size
                    _copy(kept, page, gathered, at, count)
                    for one in range(count, PAGE * size):
                        gathered[np.uintp(at + one)] = 0


@_inlined
def _copy(source, begin, target, at, count):
    for one in range(np.uintp(count)):
        target[np.uintp(at) + one] = source[np.uintp(begin) + one]


def use_threads() -> int:
    """Let the calling thread's kernels use as many threads as torch's operations; their number."""
    threads: int = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
    numba.set_num_threads(threads)
    return threads


@intrinsic
def _prefetch(context, array, index):
    """Fetch a number into the CPU's cache without waiting for it."""

    def generate(target, builder, signature, arguments):
        view = target.make_array(signature.args[0])(target, builder, arguments[0])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        where = builder.bitcast(builder.gep(view.data, [arguments[1]]), byte)
        to_read, to_keep, data = number(0), number(3), number(1)
        builder.call(function, [where, to_read, to_keep, data])
        return target.get_dummy_value()

    return types.void(array, types.uintp), generate


@_inlined
def _fetch(array, first, count):
    for one in range(0, count, _LINE // array.itemsize):
        _prefetch(array, first + np.uintp(one))


@_inlined
def _attend_one(
    size, query, key, value, pages, out, table, length, window, scale, cap, sinks, first, end
):
    """For the key heads from `first` on to before `end`. Pages before the window are not read.

    A page's heads lie side by side and are read in turn, before those of the next page. Each is
    fetched during the computation with the one before it: 33 GB/s instead of 20.
    """
    key_heads = pages.shape[1]
    group = len(query) // len(key)
    rows = (end - first) * group
    page, slot = table[(length - 1) // PAGE], (length - 1) % PAGE
    for head in range(first, end):
        for dim in range(size):
            pages[page, head, 0, slot, dim] = key[head, dim]
            pages[page, head, 1, slot, dim] = value[head, dim]
    scaled = np.empty((rows, size), np.float32)
    for row in range(rows):
        for dim in range(size):
            scaled[row, dim] = _widened(query[first * group + row, dim]) * scale
    best = np.full(rows, _LEAST)
    total = np.zeros(rows, np.float32)
    if len(sinks):
        for row in range(rows):
            best[row] = sinks[first * group + row]
            total[row] = 1
    mean = np.zeros((rows, size), np.float32)
    weights = np.empty(PAGE, np.float32)
    numbers = pages.reshape(-1)
    keys = np.uintp(PAGE * size)  # how many numbers a head's keys are in a page
    cell = keys + keys  # with its values, which lie behind them
    lowest = max(0, length - window)
    for begin in range(lowest // PAGE * PAGE, length, PAGE):
        page, known = table[begin // PAGE], min(PAGE, length - begin)
        following = table[min(begin + PAGE, length - 1) // PAGE]
        for row in range(rows):
            at = np.uintp(page * key_heads + first + row // group) * cell
            if row + 1 < rows:
                ahead = np.uintp(page * key_heads + first + (row + 1) // group) * cell
            else:
                ahead = np.uintp(following * key_heads + first) * cell
            _score(size, scaled[row], numbers, at, ahead, weights)
            if cap > 0:
                for one in range(PAGE):
                    weights[one] = cap * _tanh(weights[one] / cap)
            for one in range(lowest - begin):
                weights[one] = _LEAST
            for one in range(known, PAGE):
                weights[one] = _LEAST
            higher = best[row]
            for one in range(PAGE):
                higher = max(higher, weights[one])
            if higher > best[row]:
                shrink = _exp(best[row] - higher)
                total[row] *= shrink
                for dim in range(size):
                    mean[row, dim] *= shrink
                best[row] = higher
            for one in range(PAGE):
                weights[one] = _exp(weights[one] - higher)
                total[row] += weights[one]
            _add(size, mean[row], numbers, at + keys, known, weights)
    for row in range(rows):
        for dim in range(size):
            out[first * group + row, dim] = _narrowed(mean[row, dim] / total[row], out)


@_inlined
def _score(size, query, numbers, keys, ahead, scores):
    """The product of a query with each of a head's keys in a page.

    The next keys are fetched a part with each product: all at once would make the products wait.
    Indices are unsigned, here and in `_add`: Numba checks signed ones for a count from the end.
    """
    line = np.uintp(size)
    for one in range(PAGE):
        _fetch(numbers, ahead + np.uintp(2 * one) * line, 2 * size)
        begin = keys + np.uintp(one) * line
        product = np.float32(0)
        for dim in range(size):
            product += query[dim] * _widened(numbers[begin + np.uintp(dim)])
        scores[one] = product


@_inlined
def _add(size, mean, numbers, values, known, weights):
    """Add a head's weighted values in a page. Slots past the known length may hold NaN."""
    for one in range(known):
        begin = values + np.uintp(one) * np.uintp(size)
        for dim in range(size):
            mean[dim] += weights[one] * _widened(numbers[begin + np.uintp(dim)])


def _widened(number: Any) -> Any:
    """A float32 of a number as pages hold it."""


@overload(_widened, inline="always")
def _widened_for(number):
    if isinstance(number, types.Float):
        return lambda number: number
    return lambda number: np.uint32(np.uint32(number) << 16).view(np.float32)


def _narrowed(number: Any, like: Any) -> Any:
    """A float32 as an array holds it: rounded to the nearest bfloat16, ties to even."""


@overload(_narrowed, inline="always")
def _narrowed_for(number, like):
    if isinstance(like.dtype, types.Float):
        return lambda number, like: number

    def rounded(number, like):
        bits = np.float32(number).view(np.uint32)
        return np.uint16((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)

    return rounded


@_inlined
def _exp(x):
    """e to the power of x, for x up to 0; at least 1e-38.

    The relative error is 3e-7 near 0 and 4e-6 at -60. Unlike the library's function, this one is
    vectorized: a polynomial of fifth degree for 2 to the power of a fraction.
    """
    power = max(x * np.float32(1.4426950408889634), np.float32(-126))
    whole = np.floor(power)
    part = power - whole
    result = np.float32(1.8775767e-3)
    result = result * part + np.float32(8.9893397e-3)
    result = result * part + np.float32(5.5826318e-2)
    result = result * part + np.float32(2.4015361e-1)
    result = result * part + np.float32(6.9315308e-1)
    result = result * part + np.float32(0.99999994)
    return result * np.int32((np.int32(whole) + 127) << 23).view(np.float32)


@_inlined
def _tanh(x):
    """The hyperbolic tangent; the error is below 1e-6."""
    shrunk = _exp(np.float32(-2) * abs(x))
    result = (np.float32(1) - shrunk) / (np.float32(1) + shrunk)
    return -result if x < 0 else result
