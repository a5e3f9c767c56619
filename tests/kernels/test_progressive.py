"""Progressive decode: integer sums equal the simulator's golden model to the bit, flags follow its rule."""

import numpy as np
import pytest
import torch

from topsieve_kernels.nibble_planes import pack_planes, quantise_rows, unpack_planes
from topsieve_kernels.progressive import decode_progressive, decode_progressive_reference
from topsieve_sim.arch.formats import NumberFormats
from topsieve_sim.golden.dot_product import dot_products
from topsieve_sim.golden.numbers import join_planes, msb_only, split_planes
from topsieve_sim.golden.progressive import integer_threshold, needs_lsb

FORMATS = NumberFormats(query_bits=8, key_msb_bits=4, key_lsb_bits=4, value_bits=8)
SHAPES = [(2, 4, 2, 300, 64, 0.1), (1, 3, 1, 50, 10, 0.3), (1, 8, 8, 1, 128, 2.0), (2, 4, 1, 130, 96, 0.0)]


def operands(batch, heads, key_heads, keys, head_dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sharpness = 6 * torch.rand(batch, heads, 1, generator=generator)
    query, query_step = quantise_rows(torch.randn(batch, heads, head_dim, generator=generator) * sharpness)
    whole, step = quantise_rows(torch.randn(batch, key_heads, keys, head_dim, generator=generator))
    value, value_step = quantise_rows(torch.randn(batch, key_heads, keys, head_dim, generator=generator))
    length = torch.randint(0, keys + 1, (batch, key_heads), generator=generator)
    return whole, (query, query_step, pack_planes(whole, step), value, value_step, length)


def test_planes_are_the_golden_planes():
    whole = torch.arange(-128, 128, dtype=torch.int8).view(16, 16)
    planes = pack_planes(whole, torch.ones(16))
    msb, lsb = unpack_planes(planes)
    golden_msb, golden_lsb = split_planes(whole.numpy().astype(np.int64), 4)
    assert np.array_equal(msb.numpy(), golden_msb)
    assert np.array_equal(lsb.numpy(), golden_lsb)
    assert np.array_equal(join_planes(msb.numpy(), lsb.numpy(), 4), whole.numpy())
    assert planes.msb.numel() == whole.numel() // 2


def test_quantised_rows_are_within_half_a_step():
    values = torch.randn(5, 7, 32)
    values[0, 0] = 0
    whole, step = quantise_rows(values)
    assert whole.min() >= -127
    # Half a step, and the division's own rounding.
    assert ((whole * step[..., None] - values).abs() <= step[..., None] * (0.5 + 2.0**-16)).all()
    assert step[0, 0] == 1


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize(("batch", "heads", "key_heads", "keys", "head_dim", "threshold"), SHAPES)
def test_sums_equal_the_golden_model(interpreter, backend, batch, heads, key_heads, keys, head_dim, threshold):
    whole, inputs = operands(batch, heads, key_heads, keys, head_dim)
    found = decode_progressive(*inputs, threshold=threshold, backend=backend)
    group = heads // key_heads
    key = whole.repeat_interleave(group, 1).numpy().astype(np.int64)
    query = inputs[0].numpy().astype(np.int64)[:, :, None]
    first = dot_products(query, msb_only(key, 4), FORMATS)[:, :, 0]
    second = dot_products(query, key, FORMATS)[:, :, 0]
    wanted = np.where(found.flagged.numpy()[..., None], second, first)
    wanted[np.arange(keys) >= inputs[5].repeat_interleave(group, 1).numpy()[..., None]] = 0
    assert np.array_equal(found.accumulator.numpy(), wanted)


@pytest.mark.parametrize(("batch", "heads", "key_heads", "keys", "head_dim", "threshold"), SHAPES)
def test_kernel_matches_reference(interpreter, relative_error, batch, heads, key_heads, keys, head_dim, threshold):
    _, inputs = operands(batch, heads, key_heads, keys, head_dim)
    wanted = decode_progressive_reference(*inputs, threshold=threshold, probabilities=True)
    found = decode_progressive(*inputs, threshold=threshold, probabilities=True, backend="triton")
    assert torch.equal(found.flagged, wanted.flagged)
    # Weights, values and the output are each rounded to 2^-11.
    assert relative_error(found.output, wanted.output) < 3 * 2.0**-11
    assert relative_error(found.probability, wanted.probability) < 1e-5
    again = decode_progressive(*inputs, threshold=threshold, probabilities=True, backend="triton")
    assert torch.equal(found.output, again.output)
    assert torch.equal(found.probability, again.probability)


def test_flags_follow_the_golden_rule(interpreter):
    _, inputs = operands(3, 8, 4, 60, 64, seed=5)
    inputs = (*inputs[:5], None)
    threshold = 0.25
    first = decode_progressive(*inputs, threshold=0.0, probabilities=True, backend="triton")
    largest = first.probability.amax(-1)
    steps = 1 << FORMATS.probability_bits
    golden = needs_lsb(np.rint(largest.numpy() * steps).astype(np.int64), integer_threshold(threshold, FORMATS))
    found = decode_progressive(*inputs, threshold=threshold, backend="triton")
    # The machine compares rounded probabilities: the two rules may differ within one step of the threshold.
    sure = ((largest - threshold).abs() > 1 / steps).numpy()
    assert sure.mean() > 0.9
    assert np.array_equal(found.flagged.numpy()[sure], golden[sure])
    assert 0 < golden.mean() < 1


def test_a_sure_head_keeps_its_first_result_beside_an_unsure_one(interpreter):
    _, inputs = operands(1, 4, 1, 80, 32, seed=2)
    query_step = torch.tensor([[1e-4, 1.0, 1e-4, 1.0]])
    inputs = (inputs[0], query_step, *inputs[2:5], None)
    found = decode_progressive(*inputs, threshold=0.5, backend="triton")
    assert found.flagged.tolist() == [[True, False, True, False]]
    never = decode_progressive(*inputs, threshold=0.0, backend="triton")
    assert torch.equal(found.accumulator[0, [1, 3]], never.accumulator[0, [1, 3]])
    assert not torch.equal(found.accumulator[0, [0, 2]], never.accumulator[0, [0, 2]])
    assert torch.equal(found.output[0, [1, 3]], never.output[0, [1, 3]])


def test_missing_lsb_moves_a_score_by_at_most_the_stated_bound():
    _, inputs = operands(2, 4, 2, 50, 32)
    inputs = (*inputs[:5], None)
    first = decode_progressive(*inputs, threshold=0.0).accumulator
    second = decode_progressive(*inputs, threshold=2.0).accumulator
    bound = 15 * inputs[0].int().abs().sum(-1, keepdim=True)
    assert ((second - first).abs() <= bound).all()


@pytest.mark.parametrize(
    ("position", "value", "field"),
    [
        (0, torch.zeros(1, 4, 32), "query"),
        (1, torch.zeros(1, 3), "query_step"),
        (3, torch.zeros(1, 2, 20, 32), "value"),
        (5, torch.zeros(4), "length"),
    ],
)
def test_bad_input_is_named(position, value, field):
    _, inputs = operands(1, 4, 2, 20, 32)
    wrong = list(inputs)
    wrong[position] = value
    with pytest.raises(ValueError, match=f"^{field}: got"):
        decode_progressive(*wrong, threshold=0.1)


def test_planes_need_int8_and_an_even_width():
    with pytest.raises(ValueError, match=r"^whole: got"):
        pack_planes(torch.zeros(2, 4), torch.ones(2))
    with pytest.raises(ValueError, match=r"^D: got"):
        pack_planes(torch.zeros(2, 3, dtype=torch.int8), torch.ones(2))
