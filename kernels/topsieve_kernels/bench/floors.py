"""Work a kernel cannot avoid, and the shortest time a machine with two measured ceilings could do it in.

Compulsory traffic: every input byte is read once and every output byte written once. Compulsory arithmetic: the matrix
products of the algorithm. Exponentials and launches are not counted, so a floor is a bound from below, never a promise.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ceilings:
    """What the machine reached in this run: a plain copy (bytes read and written) and a large matrix product."""

    copy_bytes_per_s: float
    matmul_flops_per_s: float


@dataclass(frozen=True)
class Work:
    """Bytes moved at least once and floating-point operations of the matrix products."""

    memory_bytes: int
    flops: int = 0

    def floor_us(self, ceilings: Ceilings) -> float:
        """Microseconds: the longer of moving the bytes and doing the products."""
        return 1e6 * max(self.memory_bytes / ceilings.copy_bytes_per_s, self.flops / ceilings.matmul_flops_per_s)

    def bound_by(self, ceilings: Ceilings) -> str:
        """'memory' or 'matmul', whichever takes longer."""
        moving = self.memory_bytes / ceilings.copy_bytes_per_s
        return "matmul" if self.flops / ceilings.matmul_flops_per_s > moving else "memory"


def allowed_pairs(rows: int, keys: int, causal: bool) -> int:
    """Query-key pairs that attention computes; causal is aligned bottom right."""
    if not causal:
        return rows * keys
    # Row m sees m + 1 + keys - rows keys, at least none.
    first = max(rows - keys, 0)
    seen = keys - rows + first + 1
    count = rows - first
    return count * (2 * seen + count - 1) // 2


def attention_work(
    batch: int,
    heads: int,
    key_heads: int,
    rows: int,
    keys: int,
    head_dim: int,
    causal: bool,
    products: int,
    element_bytes: int = 2,
    *,
    sums: bool = True,
) -> Work:
    """Attention; `products` is 2 for one pass and 3 where the scores are formed twice; `sums`: with token and head sums."""
    tensors = 2 * batch * heads * rows * head_dim + 2 * batch * key_heads * keys * head_dim
    written = 4 * (batch * key_heads * keys + batch * heads) if sums else 0
    return Work(
        tensors * element_bytes + written, 2 * products * batch * heads * allowed_pairs(rows, keys, causal) * head_dim
    )


def decode_work(
    batch: int,
    heads: int,
    key_heads: int,
    rows: int,
    head_dim: int,
    element_bytes: int = 2,
    *,
    listed: bool = True,
    probabilities: bool = True,
) -> Work:
    """Decode over `rows` rows per key-value head; with their indices in where `listed`, and probabilities out."""
    cache = 2 * batch * key_heads * rows * head_dim * element_bytes
    lists = 4 * batch * (key_heads * listed + heads * probabilities) * rows
    return Work(cache + 2 * batch * heads * head_dim * element_bytes + lists, 4 * batch * heads * rows * head_dim)


def progressive_work(batch: int, heads: int, key_heads: int, keys: int, head_dim: int, flagged: float) -> Work:
    """Nibble-plane decode: MSB plane, the LSB plane of the `flagged` fraction of key-value heads, int8 values, steps."""
    rows = batch * key_heads * keys
    planes = rows * head_dim // 2 * (1 + flagged)
    return Work(
        int(planes + rows * head_dim + 8 * rows + 3 * batch * heads * head_dim), 4 * batch * heads * keys * head_dim
    )


def select_work(rows: int, columns: int, k: int) -> Work:
    """Top-k of float32 rows, int32 indices out."""
    return Work(4 * rows * (columns + k))


def merge_work(batch: int, tokens: int, channels: int, width: int, removed: int, element_bytes: int = 2) -> Work:
    """Matching on `width` channels and merging of `channels`."""
    read = batch * tokens * (channels + width) * element_bytes
    written = batch * (tokens - removed) * (channels * element_bytes + 8)
    return Work(read + written, 2 * batch * ((tokens + 1) // 2) * (tokens // 2) * width)


def gather_work(batch: int, heads: int, rows: int, row_bytes: int) -> Work:
    """Rows read and written once, int32 indices read."""
    return Work(batch * heads * rows * (2 * row_bytes + 4))
