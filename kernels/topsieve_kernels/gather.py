"""(f) Gather and compact: copy the surviving rows of a cache next to each other, bit for bit.

    destination[b, h, t, :] = source[b, h, index[b, h, t], :]     for t < length[b, h], and zero bytes beyond

Rows move as machine words, so every dtype is exact (keys, values, packed planes, scales alike). The destination is a
fresh tensor: compacting in place would be safe within one program (ascending indices only ever move rows down), not
across programs.
"""

import torch

from topsieve_kernels.backend import Backend, ceil_div, choose, jit, next_power_of_2, require, tl

WORDS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}


@jit
def gather_kernel(
    source_ptr,
    index_ptr,
    length_ptr,
    destination_ptr,
    source_stride_b,
    source_stride_h,
    source_stride_n,
    index_stride_b,
    index_stride_h,
    heads,
    rows,
    width,
    HAS_LENGTH: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    batch = (tl.program_id(1) // heads).to(tl.int64)
    head = (tl.program_id(1) % heads).to(tl.int64)
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    live = t < rows
    if HAS_LENGTH:
        live = live & (t < tl.load(length_ptr + tl.program_id(1)))
    index = tl.load(index_ptr + batch * index_stride_b + head * index_stride_h + t, mask=live, other=0).to(tl.int64)
    source = source_ptr + batch * source_stride_b + head * source_stride_h + index * source_stride_n
    destination = destination_ptr + (batch * heads + head) * rows * width + t.to(tl.int64) * width
    for start in range(0, width, BLOCK_W):
        w = start + tl.arange(0, BLOCK_W)
        words = tl.load(source[:, None] + w[None, :], mask=live[:, None] & (w[None, :] < width), other=0)
        tl.store(destination[:, None] + w[None, :], words, mask=(t[:, None] < rows) & (w[None, :] < width))


def gather_rows(
    source: torch.Tensor, index: torch.Tensor, length: torch.Tensor | None = None, *, backend: Backend = "auto"
) -> torch.Tensor:
    """Gathered rows [B, H, T, D], contiguous, in the source's dtype.

    Parameters
    ----------
    source : [B, H, N, D], any dtype, D contiguous (else it is copied first).
    index : integer [B, H, T] (or broadcastable to it), each from 0 to N - 1; entries at and beyond the length are ignored.
    length : integer [B, H], rows wanted; None for all T.

    Raises
    ------
    ValueError
        shapes do not fit, or (CPU operands only: it would stall a GPU) an index is out of range.
    """
    index, length = check_rows(source, index, length)
    if choose(backend, source, index, arithmetic=False) == "torch":
        return gather_rows_reference(source, index, length)
    batch, heads, _, channels = source.shape
    rows = index.shape[2]
    destination = torch.empty((batch, heads, rows, channels), dtype=source.dtype, device=source.device)
    if destination.numel() == 0:
        return destination
    words_in, words_out = _as_words(source if source.stride(-1) == 1 else source.contiguous(), destination)
    width = words_out.shape[3]
    block_w = min(next_power_of_2(width), 256)
    block_t = max(1024 // block_w, 1)
    gather_kernel[(ceil_div(rows, block_t), batch * heads)](
        words_in,
        index,
        index if length is None else length,
        words_out,
        *words_in.stride()[:3],
        index.stride(0),
        index.stride(1),
        heads,
        rows,
        width,
        HAS_LENGTH=length is not None,
        BLOCK_T=block_t,
        BLOCK_W=block_w,
        num_warps=4,
    )
    return destination


def gather_rows_reference(
    source: torch.Tensor, index: torch.Tensor, length: torch.Tensor | None = None
) -> torch.Tensor:
    """The definition with `take_along_dim`."""
    index, length = check_rows(source, index, length)
    t = torch.arange(index.shape[2], device=index.device)
    live = torch.ones_like(index, dtype=torch.bool) if length is None else t < length[..., None]
    safe = torch.where(live, index, 0).long()
    # As integers, because arithmetic on floats need not keep the bits of a NaN.
    words = source.view(WORDS[source.element_size()])
    rows = words.take_along_dim(safe[..., None].expand(*safe.shape, source.shape[3]), 2)
    return rows.masked_fill(~live[..., None], 0).view(source.dtype)


def check_rows(
    source: torch.Tensor, index: torch.Tensor, length: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Shapes and, on the CPU, ranges of a row list; returns it as int32 with unit last stride, and int32 lengths [B, H]."""
    require(source.ndim == 4, "source", tuple(source.shape), "[B, H, N, D]")
    batch, heads, count, _ = source.shape
    require(
        index.ndim == 3
        and index.shape[0] in (1, batch)
        and index.shape[1] in (1, heads)
        and not index.is_floating_point(),
        "index",
        (tuple(index.shape), index.dtype),
        f"integer [{batch}, {heads}, T]",
    )
    index = index.to(torch.int32).contiguous().expand(batch, heads, index.shape[2])
    if length is not None:
        require(tuple(length.shape) == (batch, heads), "length", tuple(length.shape), f"({batch}, {heads})")
        length = length.to(torch.int32).contiguous()
    if not index.is_cuda and index.numel():
        live = torch.ones_like(index, dtype=torch.bool)
        if length is not None:
            require(
                bool(((length >= 0) & (length <= index.shape[2])).all()),
                "length",
                length.tolist(),
                f"0 to {index.shape[2]}",
            )
            live = torch.arange(index.shape[2]) < length[..., None]
        used = index[live]
        if used.numel():
            smallest, largest = int(used.min()), int(used.max())
            require(0 <= smallest <= largest < count, "index", f"{smallest} to {largest}", f"0 to {count - 1}")
    return index, length


def _as_words(source: torch.Tensor, destination: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    row_bytes = destination.shape[3] * destination.element_size()
    spans = [stride * source.element_size() for stride in source.stride()[:3]]
    start = source.storage_offset() * source.element_size()
    size = next(word for word in (8, 4, 2, 1) if all(number % word == 0 for number in (row_bytes, start, *spans)))
    if size == source.element_size():
        return source.view(WORDS[size]), destination.view(WORDS[size])
    raw_in, raw_out = source.view(torch.uint8), destination.view(torch.uint8)
    return raw_in.view(WORDS[size]), raw_out.view(WORDS[size])
