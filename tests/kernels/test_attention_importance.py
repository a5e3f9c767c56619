"""Attention with importance: the reference against torch's own attention, the kernels against the float64 reference."""

import math

import pytest
import torch

from topsieve_kernels.attention_forward import vendor_forward
from topsieve_kernels.attention_score_sum import score_sum, score_sum_blocks
from topsieve_kernels.importance import attention_importance, attention_importance_reference

# float32: a handful of roundings of 2^-24, the exponent's argument (up to about 2^6) magnifying one of them.
# float16: the probabilities and the output are each rounded to 2^-11.
OUTPUT_BOUND = {torch.float32: 2.0**-18, torch.float16: 2.0**-10}
# The sums never leave float32, and only positive numbers are added.
SUM_BOUND = 1e-5

SHAPES = [
    # batch, query heads, key-value heads, queries, keys, head_dim, causal, padded
    pytest.param(2, 4, 2, 40, 100, 64, True, True, id="gqa-causal-padded"),
    pytest.param(1, 8, 1, 33, 17, 24, True, False, id="more-rows-than-keys"),
    pytest.param(1, 2, 2, 1, 61, 128, False, True, id="one-row"),
    pytest.param(2, 3, 3, 70, 5, 20, False, False, id="few-keys"),
    pytest.param(1, 2, 1, 300, 20, 16, True, True, id="shared-walk"),
]


def operands(batch, heads, key_heads, rows, keys, head_dim, dtype, padded=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, heads, rows, head_dim, generator=generator).to(dtype)
    key, value = (torch.randn(batch, key_heads, keys, head_dim, generator=generator).to(dtype) for _ in range(2))
    masks = {}
    if padded:
        masks["query_valid"] = torch.rand(batch, rows, generator=generator) < 0.8
        masks["key_valid"] = torch.rand(batch, keys, generator=generator) < 0.7
        masks["key_valid"][0] = False
        if batch > 1:
            masks["key_valid"][1, 0] = True
    return query, key, value, masks


def doubled(*tensors):
    return [tensor.double() for tensor in tensors]


@pytest.mark.parametrize("causal", [False, True])
def test_reference_is_torch_attention(causal, relative_error):
    query, key, value, _ = operands(2, 4, 4, 37, 37, 16, torch.float64)
    found = attention_importance_reference(query, key, value, causal=causal)
    output, lse = vendor_forward(query, key, value, scale=1 / math.sqrt(16), causal=causal, name="cpu")
    probability = torch.nn.functional.softmax(
        (query @ key.mT / 4).masked_fill(torch.ones(37, 37).triu(1).bool() & causal, -math.inf), -1
    )
    # float64 on both sides.
    assert relative_error(found.output, output) < 1e-13
    assert relative_error(found.token_sum, probability.sum(2)) < 1e-13
    assert relative_error(found.head_sum, (probability @ value).abs().sum((2, 3))) < 1e-13
    # The vendor's log-sum-exp comes back as float32.
    assert relative_error(found.log_sum_exp, lse) < 2.0**-23


def test_reference_walks_rows_in_pieces(monkeypatch, relative_error):
    query, key, value, _ = operands(1, 2, 1, 50, 60, 8, torch.float64)
    whole = attention_importance_reference(query, key, value, causal=True)
    monkeypatch.setattr("topsieve_kernels.importance.REFERENCE_ROWS", 7)
    pieces = attention_importance_reference(query, key, value, causal=True)
    assert relative_error(pieces.token_sum, whole.token_sum) < 1e-14
    assert relative_error(pieces.output, whole.output) < 1e-14


def test_wide_float32_rows_stay_in_torch(interpreter):
    query, key, value, _ = operands(1, 1, 1, 4, 4, 160, torch.float32)
    assert attention_importance(query, key, value).output.isfinite().all()
    with pytest.raises(ValueError, match=r"^head_dim: got 160, allowed: up to 128 in float32"):
        attention_importance(query, key, value, backend="triton")


@pytest.mark.parametrize(("dtype", "few"), [(torch.float32, True), (torch.float16, True), (torch.float16, False)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("rows", "keys"), [(256, 256), (300, 300), (129, 400), (400, 129), (64, 1), (1, 64), (65, 128)]
)
def test_column_sums_where_masks_end_at_tile_borders(interpreter, relative_error, rows, keys, causal, dtype, few):
    query, key, _, _ = operands(1, 2, 1, rows, keys, 16, dtype)
    wanted = attention_importance_reference(*doubled(query, key, key), causal=causal)
    token, head = score_sum(
        query,
        key,
        wanted.log_sum_exp.float(),
        scale=1 / 4,
        causal=causal,
        output=wanted.output.to(dtype),
        blocks=score_sum_blocks(16, dtype, 90, few),
    )
    assert relative_error(token, wanted.token_sum) < SUM_BOUND
    assert relative_error(head, wanted.head_sum) < OUTPUT_BOUND[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("passes", ["one", "two_triton"])
@pytest.mark.parametrize(("batch", "heads", "key_heads", "rows", "keys", "head_dim", "causal", "padded"), SHAPES)
def test_kernels_match_float64(
    interpreter, relative_error, batch, heads, key_heads, rows, keys, head_dim, causal, padded, passes, dtype
):
    query, key, value, masks = operands(batch, heads, key_heads, rows, keys, head_dim, dtype, padded)
    wanted = attention_importance_reference(*doubled(query, key, value), causal=causal, **masks)
    found = attention_importance(query, key, value, causal=causal, passes=passes, backend="triton", **masks)
    assert relative_error(found.output, wanted.output) < OUTPUT_BOUND[dtype]
    assert relative_error(found.token_sum, wanted.token_sum) < SUM_BOUND
    # Rounding errors of independent outputs mostly cancel in a sum of magnitudes, never add up to more than one's own.
    assert relative_error(found.head_sum, wanted.head_sum) < OUTPUT_BOUND[dtype]
    live = wanted.log_sum_exp.isfinite()
    assert torch.equal(found.log_sum_exp == -math.inf, ~live)
    assert relative_error(found.log_sum_exp[live], wanted.log_sum_exp[live]) < SUM_BOUND
    assert not found.output[~live].any()
    # Every live row hands out exactly one unit of probability.
    share = found.token_sum.sum()
    assert abs(share - live.sum()) <= SUM_BOUND * live.sum()


def test_long_rows_take_two_passes(interpreter, relative_error):
    query, key, value, _ = operands(1, 4, 2, 100, 300, 48, torch.float32)
    wanted = attention_importance_reference(*doubled(query, key, value), causal=True)
    found = attention_importance(query, key, value, causal=True, backend="triton")
    assert relative_error(found.output, wanted.output) < OUTPUT_BOUND[torch.float32]
    assert relative_error(found.token_sum, wanted.token_sum) < SUM_BOUND
    with pytest.raises(ValueError, match=r"^passes: got one, allowed: .two. for 300 keys"):
        attention_importance(query, key, value, passes="one", backend="triton")


@pytest.mark.parametrize("per_query_head", [False, True])
def test_second_pass_serves_a_vendor_forward(interpreter, relative_error, per_query_head):
    query, key, value, _ = operands(1, 2, 2, 80, 80, 32, torch.float16)
    wanted = attention_importance_reference(*doubled(query, key, value), causal=True, per_query_head=per_query_head)
    found = attention_importance(
        query, key, value, causal=True, per_query_head=per_query_head, passes="two_vendor", backend="triton"
    )
    assert relative_error(found.output, wanted.output) < OUTPUT_BOUND[torch.float16]
    assert relative_error(found.token_sum, wanted.token_sum) < 1e-4  # the vendor's own float16 log-sum-exp


@pytest.mark.parametrize("passes", ["one", "two_triton"])
def test_per_query_head_sums_add_up_to_the_group(interpreter, relative_error, passes):
    query, key, value, _ = operands(1, 6, 2, 20, 30, 16, torch.float32)
    apart = attention_importance(query, key, value, passes=passes, per_query_head=True, backend="triton").token_sum
    group = attention_importance(query, key, value, passes=passes, backend="triton").token_sum
    assert apart.shape == (1, 6, 30)
    assert relative_error(apart.view(1, 2, 3, 30).sum(2), group) < SUM_BOUND


@pytest.mark.parametrize("passes", ["one", "two_triton"])
def test_bits_repeat_and_batches_are_independent(interpreter, passes):
    query, key, value, masks = operands(3, 2, 1, 20, 40, 16, torch.float16, padded=True)

    def run(order):
        picked = {name: mask[order] for name, mask in masks.items()}
        return attention_importance(query[order], key[order], value[order], passes=passes, backend="triton", **picked)

    plain, again, turned = run([0, 1, 2]), run([0, 1, 2]), run([2, 0, 1])
    for name in ("output", "log_sum_exp", "token_sum", "head_sum"):
        assert torch.equal(getattr(plain, name), getattr(again, name))
        assert torch.equal(getattr(plain, name)[[2, 0, 1]], getattr(turned, name))


def test_strided_operands_are_read_in_place(interpreter):
    query, key, value, _ = operands(2, 2, 2, 12, 20, 16, torch.float32)
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (query, key, value)]
    assert not strided[0].is_contiguous()
    for passes in ("one", "two_triton"):
        plain = attention_importance(query, key, value, passes=passes, backend="triton")
        turned = attention_importance(*strided, passes=passes, backend="triton")
        assert torch.equal(plain.output, turned.output)
        assert torch.equal(plain.token_sum, turned.token_sum)


def test_extreme_scores_stay_finite(interpreter, relative_error):
    query, key, value, _ = operands(1, 1, 1, 16, 48, 16, torch.float32)
    query = query * 200
    wanted = attention_importance_reference(*doubled(query, key, value))
    for passes in ("one", "two_triton"):
        found = attention_importance(query, key, value, passes=passes, backend="triton")
        # Scores of about 2^10 are rounded to 2^-13 before the exponential.
        assert relative_error(found.token_sum, wanted.token_sum) < 2.0**-12


def test_a_wrong_head_group_would_be_seen(interpreter, relative_error):
    """The mean over a group instead of its sum is the fault that others shipped; the bound must tell them apart."""
    query, key, value, _ = operands(1, 4, 1, 16, 16, 16, torch.float32)
    wanted = attention_importance_reference(query, key, value)
    token, _ = score_sum(query, key, wanted.log_sum_exp, scale=0.25)
    assert relative_error(token, wanted.token_sum) < SUM_BOUND < relative_error(token / 4, wanted.token_sum)


def test_cpu_tensors_run_without_triton_code():
    query, key, value, masks = operands(2, 4, 2, 9, 11, 8, torch.bfloat16, padded=True)
    found = attention_importance(query, key, value, causal=True, **masks)
    assert found.output.dtype == torch.bfloat16
    assert found.token_sum.shape == (2, 2, 11)
    assert found.output.isfinite().all()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"query": torch.zeros(2, 3, 4)}, "query"),
        ({"key": torch.zeros(1, 3, 5, 8), "value": torch.zeros(1, 3, 5, 8)}, "key"),
        ({"value": torch.zeros(1, 2, 5, 4)}, "value"),
        ({"key": torch.zeros(1, 2, 5, 8, dtype=torch.float16)}, "dtype"),
        ({"key_valid": torch.ones(1, 6, dtype=torch.bool)}, "key_valid"),
        ({"passes": "three"}, "passes"),
        ({"backend": "cuda"}, "backend"),
    ],
)
def test_bad_input_is_named_in_one_line(change, field):
    good = {"query": torch.zeros(1, 4, 3, 8), "key": torch.zeros(1, 2, 5, 8), "value": torch.zeros(1, 2, 5, 8)}
    with pytest.raises(ValueError, match=f"^{field}: got") as caught:
        attention_importance(**(good | change))
    assert "\n" not in str(caught.value)


def test_float64_is_refused_in_triton(interpreter):
    query, key, value, _ = operands(1, 1, 1, 4, 4, 8, torch.float64)
    assert attention_importance(query, key, value).output.dtype == torch.float64
    with pytest.raises(ValueError, match=r"^dtype: got torch.float64"):
        attention_importance(query, key, value, backend="triton")


def test_bfloat16_is_refused_in_the_interpreter(interpreter):
    query, key, value, _ = operands(1, 1, 1, 4, 4, 8, torch.bfloat16)
    with pytest.raises(ValueError, match="bfloat16 is wrong"):
        attention_importance(query, key, value, backend="triton")
