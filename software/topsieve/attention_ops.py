"""The operations of plain attention, as every lowering writes them: scores, softmax, and the values behind what is tapped."""

from __future__ import annotations

from topsieve.reduction.roles import BitPlan, ModelShape
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import UNQUANTISED_BITS, ProbabilityValue, QueryKey, Softmax

UNQUANTISED = BitPlan(UNQUANTISED_BITS, UNQUANTISED_BITS, 0, UNQUANTISED_BITS, 0.0)


def attention_group(
    shape: ModelShape, place: dict[str, int], queries: int, keys: int, bits: BitPlan, *, causal: bool
) -> tuple[Op, Op, Op]:
    """Scores, softmax and values of all heads of `shape`; taps on the probabilities stand between the last two.

    Parameters
    ----------
    place : layer, and sequence and step where they are not 0.
    bits : widths; where keys have an LSB plane, the data decides which rows need it.
    """
    heads = {"heads": shape.heads, "kv_heads": shape.kv_heads, "queries": queries, "keys": keys}
    scores = QueryKey(
        **place,
        **heads,
        head_dim=shape.head_dim,
        query_bits=bits.query_bits,
        key_msb_bits=bits.key_msb_bits,
        key_lsb_bits=bits.key_lsb_bits,
        threshold=bits.threshold,
        lsb_rows=-1 if bits.key_lsb_bits else 0,
        causal=causal,
    )
    softmax = Softmax(**place, heads=shape.heads, rows=queries, cols=keys)
    return (
        scores,
        softmax,
        ProbabilityValue(**place, **heads, kept=keys, head_dim=shape.head_dim, value_bits=bits.value_bits),
    )
