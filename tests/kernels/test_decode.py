"""Decode over listed rows: equal to dense attention with everything else masked, in any order, to the bit again and again."""

import math

import pytest
import torch

from topsieve_kernels.decode import decode_gathered, decode_gathered_reference

# As for attention: float16 rounds weights and output to 2^-11 each.
OUTPUT_BOUND = {torch.float32: 2.0**-18, torch.float16: 2.0**-10}


def operands(batch, heads, key_heads, keys, rows, head_dim, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, heads, head_dim, generator=generator).to(dtype)
    key, value = (torch.randn(batch, key_heads, keys, head_dim, generator=generator).to(dtype) for _ in range(2))
    index = torch.rand(batch, key_heads, keys, generator=generator).argsort(-1)[..., :rows].sort(-1).values
    length = torch.randint(0, rows + 1, (batch, key_heads), generator=generator)
    return query, key, value, index, length


def test_reference_is_dense_attention_with_a_mask(relative_error):
    query, key, value, index, length = operands(3, 6, 2, 40, 25, 16, torch.float64)
    length = length.clamp_min(1)
    allowed = torch.zeros(3, 2, 40, dtype=torch.bool)
    for b in range(3):
        for h in range(2):
            allowed[b, h, index[b, h, : length[b, h]]] = True
    mask = allowed.repeat_interleave(3, 1)[:, :, None]
    dense = torch.nn.functional.scaled_dot_product_attention(
        query[:, :, None], key.repeat_interleave(3, 1), value.repeat_interleave(3, 1), attn_mask=mask
    )
    found = decode_gathered_reference(query, key, value, index, length, probabilities=True)
    assert relative_error(found.output, dense[:, :, 0]) < 1e-13
    torch.testing.assert_close(found.probability.sum(-1), torch.ones(3, 6).double(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    "shape", [(2, 8, 2, 200, 150, 64), (1, 1, 1, 10, 10, 5), (2, 3, 3, 40, 1, 96), (1, 17, 1, 70, 66, 32)], ids=str
)
def test_kernel_matches_float64(interpreter, relative_error, shape, dtype):
    query, key, value, index, length = operands(*shape, dtype)
    length[0, 0] = 0
    wanted = decode_gathered_reference(query.double(), key.double(), value.double(), index, length, probabilities=True)
    found = decode_gathered(query, key, value, index, length, probabilities=True, backend="triton")
    assert relative_error(found.output, wanted.output) < OUTPUT_BOUND[dtype]
    assert relative_error(found.probability, wanted.probability) < 1e-5
    live = wanted.log_sum_exp.isfinite()
    assert torch.equal(found.log_sum_exp == -math.inf, ~live)
    assert relative_error(found.log_sum_exp[live], wanted.log_sum_exp[live]) < 1e-5
    assert not found.output[~live].any()
    again = decode_gathered(query, key, value, index, length, probabilities=True, backend="triton")
    assert torch.equal(found.output, again.output)
    assert torch.equal(found.probability, again.probability)


def test_any_order_of_the_list_gives_the_same(interpreter, relative_error):
    query, key, value, index, _ = operands(1, 2, 1, 90, 80, 32, torch.float32)
    turned = index[..., torch.randperm(80, generator=torch.Generator().manual_seed(3))]
    plain = decode_gathered(query, key, value, index, backend="triton")
    other = decode_gathered(query, key, value, turned, backend="triton")
    assert relative_error(other.output, plain.output) < 1e-6


def test_without_probabilities_the_output_has_the_same_bits(interpreter):
    query, key, value, index, length = operands(1, 4, 2, 60, 50, 16, torch.float16)
    plain = decode_gathered(query, key, value, index, length, backend="triton")
    assert plain.probability is None
    full = decode_gathered(query, key, value, index, length, probabilities=True, backend="triton")
    assert torch.equal(plain.output, full.output)


def test_an_empty_list_gives_zero(interpreter):
    query, key, value, _, _ = operands(1, 2, 1, 8, 4, 16, torch.float32)
    nothing = torch.zeros(1, 1, 0, dtype=torch.int64)
    for backend in ("torch", "triton"):
        found = decode_gathered(query, key, value, nothing, backend=backend)
        assert not found.output.any()
        assert (found.log_sum_exp == -math.inf).all()


def test_a_row_listed_twice_is_refused():
    query, key, value, _, _ = operands(1, 2, 1, 8, 4, 16, torch.float32)
    with pytest.raises(ValueError, match=r"^index: got a row listed twice"):
        decode_gathered(query, key, value, torch.tensor([[[3, 1, 3]]]))
    decode_gathered(query, key, value, torch.tensor([[[3, 1, 3]]]), torch.tensor([[2]]))


@pytest.mark.full
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_many_parts(interpreter, relative_error, dtype):
    query, key, value, index, _ = operands(1, 4, 1, 5000, 4900, 128, dtype)
    wanted = decode_gathered_reference(query.double(), key.double(), value.double(), index)
    found = decode_gathered(query, key, value, index, backend="triton")
    assert relative_error(found.output, wanted.output) < OUTPUT_BOUND[dtype]
