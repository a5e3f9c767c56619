"""Bipartite merging: the matching is optimal, the merge conserves, the kernels make the same choices given the same scores."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topsieve_kernels.merging import best_partners, best_partners_reference, bipartite_merge, merge_chosen
from topsieve_kernels.selection import topk_select

SHAPES = [
    # batch, tokens, channels, metric channels, removed, protected, sized
    (2, 37, 24, 64, 12, (0,), True),
    (1, 30, 10, 7, 15, (), False),
    (1, 9, 1100, 100, 3, (2, 1), True),
    (2, 12, 8, 8, 0, (), False),
    (1, 2, 3, 5, 1, (), False),
]


def operands(batch, tokens, channels, width, sized, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, tokens, channels, generator=generator).to(dtype)
    metric = torch.randn(batch, tokens, width, generator=generator).to(dtype)
    size = torch.randint(1, 9, (batch, tokens), generator=generator).float() if sized else None
    return x, metric, size


@given(st.integers(2, 9), st.integers(0, 4), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_the_choice_is_the_optimal_set_of_edges(tokens, removed, seed):
    metric = torch.randn(1, tokens, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    sources, destinations = range(0, tokens, 2), range(1, tokens, 2)
    removed = min(removed, len(sources))
    unit = metric[0] / metric[0].norm(dim=-1, keepdim=True)
    best = max(
        sum(float(unit[a] @ unit[b]) for a, b in zip(chosen, partners, strict=True))
        for chosen in itertools.combinations(sources, removed)
        for partners in itertools.product(destinations, repeat=removed)
    )
    merge = bipartite_merge(metric, metric, removed)
    found = (unit[merge.source[0].long()] * unit[merge.destination[0].long()]).sum()
    # The selection compares float32 scores.
    assert abs(float(found) - best) <= 2.0**-20 * max(removed, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scores_match_float64(interpreter, relative_error, shape, dtype):
    batch, tokens, channels, width, _, protected, _ = shape
    _, metric, _ = operands(batch, tokens, channels, width, False, dtype)
    score, partner = best_partners(metric, protected, backend="triton")
    wanted, wanted_partner = best_partners_reference(metric.double(), protected)
    live = wanted.isfinite()
    assert torch.equal(score == -torch.inf, ~live)
    # Products of float16 are exact in float32, so both dtypes see float32 sums only.
    assert relative_error(score[live], wanted[live]) < 2.0**-20
    chosen = partner[live] == wanted_partner[live]
    assert chosen.float().mean() > 0.95
    # A partner that differs is a near tie: its own score is as good to within the same rounding.
    unit = torch.nn.functional.normalize(metric.double(), dim=-1)
    own = (unit[:, 0::2] * unit.gather(1, partner.long()[..., None].expand(-1, -1, width))).sum(-1)
    assert ((wanted - own)[live] <= 2.0**-20).all()


def test_equal_scores_take_the_lowest_partner(interpreter):
    metric = torch.ones(1, 150, 4)
    for backend in ("torch", "triton"):
        _, partner = best_partners(metric, (1, 3), backend=backend)
        assert (partner == 5).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_merge_equals_reference_given_the_same_scores(interpreter, relative_error, shape, dtype):
    batch, tokens, channels, width, removed, protected, sized = shape
    x, metric, size = operands(batch, tokens, channels, width, sized, dtype)
    score, partner = best_partners_reference(metric, protected)
    chosen = topk_select(score, removed).indices
    found = merge_chosen(x, chosen, partner, size, backend="triton")
    wanted = merge_chosen(x, chosen, partner, size, backend="torch")
    for name in ("size", "kept", "source", "destination"):
        assert torch.equal(getattr(found, name), getattr(wanted, name))
    # Both sum in float32; the order may differ, and float16 rounds the result once.
    assert relative_error(found.tokens, wanted.tokens) < {torch.float32: 2.0**-21, torch.float16: 2.0**-11}[dtype]
    again = merge_chosen(x, chosen, partner, size, backend="triton")
    assert torch.equal(found.tokens, again.tokens)


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_mass_is_conserved_and_untouched_tokens_keep_their_bits(interpreter, relative_error, shape, backend):
    batch, tokens, channels, width, removed, protected, sized = shape
    x, metric, size = operands(batch, tokens, channels, width, sized)
    merge = bipartite_merge(x, metric, removed, size=size, protected=protected, backend=backend)
    weight = torch.ones(batch, tokens) if size is None else size
    assert torch.equal(merge.size.sum(1), weight.sum(1))
    mass = (x.double() * weight[..., None]).sum(1)
    assert relative_error((merge.tokens.double() * merge.size[..., None]).sum(1), mass) < 1e-5
    assert merge.kept.shape == (batch, tokens - removed)
    assert (merge.kept.diff(dim=1) > 0).all()
    for b in range(batch):
        removed_ids, joined = set(merge.source[b].tolist()), set(merge.destination[b].tolist())
        assert set(merge.kept[b].tolist()) | removed_ids == set(range(tokens))
        assert not removed_ids & set(protected)
        assert not joined & set(protected)
        for row, token in enumerate(merge.kept[b].tolist()):
            if token not in joined:
                assert torch.equal(merge.tokens[b, row], x[b, token])


def test_every_source_may_join_the_same_destination(interpreter):
    x = torch.randn(1, 41, 6)
    metric = torch.ones(1, 41, 4)
    found = bipartite_merge(x, metric, 21, backend="triton")
    assert found.size[0, 0] == 22
    torch.testing.assert_close(found.tokens[0, 0], (x[0, 0::2].sum(0) + x[0, 1]) / 22, rtol=1e-5, atol=1e-6)


def test_a_token_without_direction_is_similar_to_none(interpreter):
    metric = torch.randn(1, 8, 4)
    metric[0, 2] = 0
    for backend in ("torch", "triton"):
        score, partner = best_partners(metric, backend=backend)
        assert score[0, 1] == 0
        assert partner[0, 1] == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"removed": 5}, "removed"),
        ({"removed": 4, "protected": (0,)}, "removed"),
        ({"protected": (99,)}, "protected"),
        ({"size": torch.ones(2, 2)}, "size"),
    ],
)
def test_bad_input_is_named(change, field):
    good = {"tokens": torch.zeros(1, 8, 2), "metric": torch.zeros(1, 8, 2), "removed": 2}
    with pytest.raises(ValueError, match=f"^{field}: got"):
        bipartite_merge(**(good | change))
