"""The engine's kernels, in Triton: attention over pages, and the product with a single row.

`torch.nn.attention.varlen` of torch 2.13 takes block tables only with FlashAttention 3, another
package, or with pages of 256 tokens, too coarse to share prefixes by.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator,import-not-found,import-untyped"
# ruff: noqa: N803  # constants of a compiled kernel are written as Triton's users write them
# Triton reads this source itself and takes neither annotations nor our types; without a GPU it is
# not installed.

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def store_paged(
    key,  # (ids, key heads, SIZE)
    value,
    keys,  # (slots, key heads, SIZE)
    values,
    slots,  # (ids,): where each id's key and value go
    key_stride_id,
    key_stride_head,
    value_stride_id,
    value_stride_head,
    slot_stride,
    SIZE: tl.constexpr,
    SIZE_PADDED: tl.constexpr,  # a power of two
):
    nth = tl.program_id(0)
    head = tl.program_id(1)
    dim = tl.arange(0, SIZE_PADDED)
    inside = dim < SIZE
    at = tl.load(slots + nth).to(tl.int64) * slot_stride + head * SIZE + dim
    k = tl.load(key + nth * key_stride_id + head * key_stride_head + dim, mask=inside)
    v = tl.load(value + nth * value_stride_id + head * value_stride_head + dim, mask=inside)
    tl.store(keys + at, k, mask=inside)
    tl.store(values + at, v, mask=inside)


# these numbers change with each step, and compiling a kernel for each kind would stall replies
@triton.jit(do_not_specialize=["ids", "table_stride", "columns"])
def attend_paged(
    query,  # (ids, heads, SIZE)
    keys,  # (slots, key heads, SIZE)
    values,
    out,  # like query; with SPLITS, (SPLITS, ids, heads, SIZE) float32, to be joined
    tops,  # (SPLITS, ids, heads) float32: with SPLITS, each part's highest score
    sums,  # likewise: the sum of its weights
    tables,  # (sequences, columns): which page holds each stretch of PAGE ids
    lengths,  # (sequences,): ids of each sequence, the step's own included
    starts,  # (sequences + 1,): where each sequence's ids begin in query
    tile_sequence,  # (tiles,)
    tile_first,  # (tiles,): of the sequence's ids in query, the first of the tile
    window,  # (): with WINDOW, how many ids each attends to, itself included
    sinks,  # (heads,): with SINKS, a score beside those of the keys
    scale,
    cap,  # of scores, with CAPPED
    ids,  # of all sequences
    query_stride_id,
    query_stride_head,
    slot_stride,
    table_stride,
    columns,  # with WINDOW, those behind the last begin again at the first
    PAGE: tl.constexpr,
    SIZE: tl.constexpr,
    SIZE_PADDED: tl.constexpr,  # a power of two
    GROUP: tl.constexpr,  # heads that share a key head
    TILE: tl.constexpr,  # ids a tile
    ROWS: tl.constexpr,  # a power of two, at least 16, at least GROUP * TILE
    KEYS: tl.constexpr,  # keys an iteration
    SPLITS: tl.constexpr,  # programs that share a tile's keys
    WINDOW: tl.constexpr,
    CAPPED: tl.constexpr,
    SINKS: tl.constexpr,
):
    tile = tl.program_id(0)
    head = tl.program_id(1)
    split = tl.program_id(2)
    sequence = tl.load(tile_sequence + tile)
    first = tl.load(tile_first + tile)
    start = tl.load(starts + sequence)
    count = tl.load(starts + sequence + 1) - start
    length = tl.load(lengths + sequence)

    row = tl.arange(0, ROWS)
    nth = first + row // GROUP
    valid = (nth < count) & (row < GROUP * TILE)
    # a padding row sees the first key, so that nothing divides by zero
    position = tl.where(valid, length - count + nth, 0)
    dim = tl.arange(0, SIZE_PADDED)
    inside = dim < SIZE
    at_query = (
        (start + nth)[:, None] * query_stride_id
        + (head * GROUP + row % GROUP)[:, None] * query_stride_head
        + dim[None, :]
    )
    q = tl.load(query + at_query, mask=valid[:, None] & inside[None, :], other=0.0)

    # a finite number, so that a row may see no key of an iteration
    best = tl.full([ROWS], -1e30, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    if SINKS:  # noqa: SIM102  # it is decided at compilation, and the other is not
        if split == 0:
            at_sink = sinks + head * GROUP + row % GROUP
            best = tl.load(at_sink, mask=valid, other=0.0).to(tl.float32)
            total += 1.0
    mean = tl.zeros([ROWS, SIZE_PADDED], tl.float32)
    end = tl.minimum(length, length - count + first + TILE)
    lowest = 0
    if WINDOW:
        width = tl.load(window)
        lowest = tl.maximum(length - count + first - width + 1, 0)
    begin_page = lowest // PAGE * PAGE  # pages before it are not read
    share = tl.cdiv(tl.cdiv(end - begin_page, KEYS), SPLITS) * KEYS
    begin_page += split * share
    end = tl.minimum(end, begin_page + share)
    for begin in range(begin_page, end, KEYS):
        key = begin + tl.arange(0, KEYS)
        known = key < end
        column = key // PAGE
        if WINDOW:
            column = column % columns
        page = tl.load(tables + sequence * table_stride + column, mask=known, other=0)
        slot = page.to(tl.int64) * PAGE + key % PAGE
        at = slot[:, None] * slot_stride + head * SIZE + dim[None, :]
        mask = known[:, None] & inside[None, :]
        k = tl.load(keys + at, mask=mask, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        if CAPPED:
            scores = cap * (2.0 * tl.sigmoid(scores * (2.0 / cap)) - 1.0)
        seen = known[None, :] & (key[None, :] <= position[:, None])
        if WINDOW:
            seen = seen & (key[None, :] > position[:, None] - width)
        scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(best, tl.max(scores, 1))
        weights = tl.exp(scores - higher[:, None])
        fade = tl.exp(best - higher)
        v = tl.load(values + at, mask=mask, other=0.0)
        mean = mean * fade[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        total = total * fade + tl.sum(weights, 1)
        best = higher

    heads = tl.num_programs(1) * GROUP
    at_head = (start + nth) * heads + head * GROUP + row % GROUP
    if SPLITS == 1:
        mean = mean / total[:, None]
    else:
        at_head += split * ids * heads
        tl.store(tops + at_head, best, mask=valid)
        tl.store(sums + at_head, total, mask=valid)
    at_out = at_head[:, None] * SIZE + dim[None, :]
    tl.store(out + at_out, mean.to(out.dtype.element_ty), mask=valid[:, None] & inside[None, :])


@triton.jit
def join_splits(
    parts,  # (SPLITS, rows, SIZE) float32: a row is a head of an id
    tops,  # (SPLITS, rows)
    sums,
    out,  # (rows, SIZE)
    SIZE: tl.constexpr,
    SIZE_PADDED: tl.constexpr,
    SPLITS: tl.constexpr,  # a power of two
):
    row = tl.program_id(0)
    at = tl.arange(0, SPLITS) * tl.num_programs(0) + row
    dim = tl.arange(0, SIZE_PADDED)
    inside = dim < SIZE
    top = tl.load(tops + at)
    fade = tl.exp(top - tl.max(top, 0))  # 0 where a part had no keys
    total = tl.sum(tl.load(sums + at) * fade, 0)
    part = tl.load(parts + at[:, None] * SIZE + dim[None, :], mask=inside[None, :], other=0.0)
    mean = tl.sum(part * fade[:, None], 0) / total
    tl.store(out + row * SIZE + dim, mean.to(out.dtype.element_ty), mask=inside)


@triton.jit
def multiply_row(
    x,  # (SIZE,)
    weight,  # (outputs, SIZE)
    bias,  # (outputs,), if BIASED
    out,  # (outputs,)
    outputs,
    weight_stride,
    SIZE: tl.constexpr,
    BIASED: tl.constexpr,
    OUTPUTS: tl.constexpr,  # a program
    INPUTS: tl.constexpr,  # an iteration
):
    row = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    known = row < outputs
    total = tl.zeros([OUTPUTS, INPUTS], tl.float32)
    # unrolled, so that all loads of the weight are issued before the first arrives
    for begin in tl.static_range(0, SIZE, INPUTS):
        column = begin + tl.arange(0, INPUTS)
        inside = column < SIZE
        at = row.to(tl.int64)[:, None] * weight_stride + column[None, :]
        w = tl.load(weight + at, mask=known[:, None] & inside[None, :], other=0.0)
        total += w.to(tl.float32) * tl.load(x + column, mask=inside, other=0.0).to(tl.float32)
    result = tl.sum(total, 1)
    if BIASED:
        result += tl.load(bias + row, mask=known, other=0.0).to(tl.float32)
    tl.store(out + row, result.to(out.dtype.element_ty), mask=known)
