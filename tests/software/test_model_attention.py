"""Value pruning, quantisation and progressive recompute against independent formulations."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from software.encoders import relative
from topsieve.models.attention import attend, kept_values, largest
from topsieve.models.quantise import quantise, quantise_operands
from topsieve.reduction.ordering import top_k_mask
from topsieve.reduction.roles import AttentionPolicy, BitPlan
from topsieve_sim.golden.numbers import msb_only, symmetric_scale
from topsieve_sim.golden.numbers import quantise as golden_quantise

SEEDS = st.integers(0, 2**31)


@given(SEEDS, st.integers(1, 20), st.integers(1, 4))
def test_the_largest_follow_the_one_tie_rule(seed: int, keys: int, levels: int) -> None:
    random = torch.Generator().manual_seed(seed)
    probability = torch.randint(0, levels + 1, (2, 3, 4, keys), generator=random).float()
    counts = torch.randint(1, keys + 1, (2,), generator=random)
    flat = probability.reshape(24, keys)
    wanted = top_k_mask(flat, counts.repeat_interleave(12), torch.ones_like(flat, dtype=torch.bool))
    assert torch.equal(largest(probability, counts).reshape(24, keys), wanted)


@given(st.integers(1, 2000), st.integers(1, 100))
def test_kept_values_has_no_float_error(keys: int, percent: int) -> None:
    assert kept_values(keys, percent / 100) == max(1, math.floor(Fraction(percent, 100) * keys))


@given(SEEDS, st.integers(2, 12))
def test_quantised_values_are_within_half_a_step(seed: int, bits: int) -> None:
    x = torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    valid = torch.tensor([[True] * 4 + [False]])
    integers, scale = quantise(x, valid, bits)
    live = integers[:, :, :4]
    assert torch.equal(live, live.round())
    assert live.abs().amax() == 2 ** (bits - 1) - 1
    assert ((live * scale - x[:, :, :4]).abs() <= scale * (0.5 + 1e-9)).all()


def test_rounding_is_half_to_even_and_zero_is_safe() -> None:
    x = torch.tensor([[[[7.0, 0.5, 1.5, -2.5, -0.5]]]])
    integers, scale = quantise(x, torch.ones(1, 1, dtype=torch.bool), 4)
    assert scale.item() == 1.0
    assert integers.flatten().tolist() == [7, 0, 2, -2, 0]
    integers, scale = quantise(torch.zeros(1, 1, 2, 2), torch.ones(1, 2, dtype=torch.bool), 4)
    assert not integers.any()
    assert scale.item() == 1.0


@given(SEEDS, st.integers(2, 8), st.integers(1, 6))
def test_the_msb_plane_is_the_integer_shifted(seed: int, msb: int, lsb: int) -> None:
    random = torch.Generator().manual_seed(seed)
    key = torch.randn(1, 1, 6, 3, generator=random, dtype=torch.float64)
    valid = torch.ones(1, 6, dtype=torch.bool)
    integers, scale = quantise(key, valid, msb + lsb)
    operands = quantise_operands(key, key, key, valid, BitPlan(12, msb, lsb, 12, 0.1))
    plane = torch.tensor(np.right_shift(integers.numpy().astype(np.int64), lsb))
    assert torch.allclose(operands.key_msb, plane * 2**lsb * scale, rtol=1e-12)
    assert plane.abs().amax() <= 2 ** (msb - 1)
    assert torch.allclose(operands.key, integers * scale, rtol=1e-12)


@given(SEEDS, st.integers(2, 8), st.integers(0, 6))
def test_the_machine_quantises_alike(seed: int, msb: int, lsb: int) -> None:
    """To the bit the integers and planes of the golden models, head by head."""
    key = torch.randn(1, 3, 6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    valid = torch.ones(1, 6, dtype=torch.bool)
    integers, scale = quantise(key, valid, msb + lsb)
    wanted_scale = symmetric_scale(key[0].numpy(), msb + lsb, (1, 2))
    wanted = golden_quantise(key[0].numpy(), wanted_scale, msb + lsb)
    assert np.array_equal(scale[0].numpy(), wanted_scale)
    assert np.array_equal(integers[0].numpy(), wanted)
    operands = quantise_operands(key, key, key, valid, BitPlan(12, msb, lsb, 12, 0.1))
    assert np.array_equal(operands.key_msb[0].numpy(), msb_only(wanted, lsb) * wanted_scale)


def attention(policy: AttentionPolicy, seed: int = 0, tokens: int = 12, heads: torch.Tensor | None = None) -> tuple:
    random = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(2, 3, tokens, 8, generator=random, dtype=torch.float64) for _ in range(3))
    valid = torch.arange(tokens) < torch.tensor([[tokens], [tokens - 4]])
    alive = torch.ones(2, 3, dtype=torch.bool) if heads is None else heads
    size = valid.double()
    attended = attend(
        query, key, value, valid=valid, heads=alive, size=size, scaling=0.7, policy=policy, needs=frozenset()
    )
    return query, key, value, valid, attended


def test_value_pruning_keeps_the_largest_without_renormalising() -> None:
    query, key, value, valid, attended = attention(AttentionPolicy(value_keep=0.3))
    for row in range(2):
        live = int(valid[row].sum())
        probability = (query[row] @ key[row].transpose(1, 2) * 0.7)[..., :live].softmax(-1)
        for head in range(3):
            for token in range(live):
                row_of = probability[head, token]
                kept = row_of.argsort(descending=True)[: math.floor(0.3 * live)]
                wanted = row_of[kept] @ value[row, head, kept]
                assert relative(attended.output[row, token, head], wanted) < 1e-12


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 1.0])
def test_rows_under_the_threshold_are_recomputed_once(threshold: float) -> None:
    plan = BitPlan(query_bits=8, key_msb_bits=3, key_lsb_bits=5, value_bits=8, threshold=threshold)
    heads = torch.tensor([[True, True, True], [True, False, True]])
    query, key, value, valid, attended = attention(AttentionPolicy(bits=plan), heads=heads)
    operands = quantise_operands(query, key, value, valid, plan)
    rows = torch.zeros(2, 3, dtype=torch.int64)
    for row in range(2):
        live = int(valid[row].sum())
        for head in range(3):
            for token in range(live):
                scores = operands.key_msb[row, head, :live] @ operands.query[row, head, token] * 0.7
                probability = scores.softmax(-1)
                if probability.max() < threshold:
                    rows[row, head] += int(heads[row, head])
                    probability = (operands.key[row, head, :live] @ operands.query[row, head, token] * 0.7).softmax(-1)
                wanted = probability @ operands.value[row, head, :live] * heads[row, head]
                assert (attended.output[row, token, head] - wanted).norm() < 1e-12
    assert torch.equal(attended.lsb_rows, rows)
    assert bool(rows.any()) == (threshold > 0)


def test_static_quantisation_counts_no_lsb_rows() -> None:
    plan = BitPlan(query_bits=12, key_msb_bits=12, key_lsb_bits=0, value_bits=12, threshold=0.5)
    *_, attended = attention(AttentionPolicy(bits=plan))
    assert attended.lsb_rows is None


def test_more_bits_come_closer() -> None:
    exact = attention(AttentionPolicy())[-1].output
    errors = [
        relative(attention(AttentionPolicy(bits=BitPlan(bits, bits, 0, bits, 0.0)))[-1].output, exact)
        for bits in (4, 8, 12, 16)
    ]
    assert all(coarse > 8 * fine for coarse, fine in itertools.pairwise(errors))


def test_grouped_heads_share_their_keys() -> None:
    random = torch.Generator().manual_seed(3)
    query = torch.randn(1, 4, 6, 8, generator=random)
    key, value = (torch.randn(1, 2, 6, 8, generator=random) for _ in range(2))
    options = {
        "valid": torch.ones(1, 6, dtype=torch.bool),
        "heads": torch.ones(1, 4, dtype=torch.bool),
        "size": torch.ones(1, 6),
        "scaling": 0.3,
        "policy": AttentionPolicy(),
        "needs": frozenset(),
    }
    grouped = attend(query, key, value, **options)
    spread = attend(query, key[:, [0, 0, 1, 1]], value[:, [0, 0, 1, 1]], **options)
    assert torch.equal(grouped.output, spread.output)
