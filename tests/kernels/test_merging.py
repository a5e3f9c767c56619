"""Bipartite merging: the matching is optimal, the merge conserves, the kernels make the same choices given the same scores."""

import itertools

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from topsieve_kernels import matching, merge_plan, merging
from topsieve_kernels.matching import best_partners, best_partners_reference, channel_blocks, partner_blocks
from topsieve_kernels.merging import bipartite_merge, merge_chosen
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


# The fixtures of these tests hold no state.
IN_INTERPRETER = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


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


def check_partners(metric, protected, relative_error):
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
    own = (unit[:, 0::2] * unit.gather(1, partner.long()[..., None].expand(-1, -1, metric.shape[2]))).sum(-1)
    assert ((wanted - own)[live] <= 2.0**-20).all()
    again = best_partners(metric, protected, backend="triton")
    assert torch.equal(score, again[0])
    assert torch.equal(partner, again[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scores_match_float64(interpreter, relative_error, shape, dtype):
    batch, tokens, channels, width, _, protected, _ = shape
    _, metric, _ = operands(batch, tokens, channels, width, False, dtype)
    check_partners(metric, protected, relative_error)


@pytest.mark.parametrize(
    ("tokens", "width", "dtype", "multiprocessors", "rows", "resident"),
    [
        (290, 80, torch.float16, 132, 64, True),
        (290, 64, torch.float16, 1, 128, True),
        (29, 330, torch.float16, 132, 64, True),
        (24, 450, torch.float16, 132, 128, False),
        (131, 150, torch.float32, 132, 64, False),
    ],
)
@pytest.mark.parametrize("protected", [(), (0, 1, 2, 23)])
def test_every_way_through_the_channels_scores_alike(
    interpreter, relative_error, monkeypatch, tokens, width, dtype, multiprocessors, rows, resident, protected
):
    monkeypatch.setattr(matching, "multiprocessors", lambda _: multiprocessors)
    blocks = partner_blocks(dtype, 1, tokens, width, multiprocessors, 90)
    assert (blocks["BLOCK_A"], blocks["RESIDENT"]) == (rows, resident)
    assert blocks["HAS_NORMS"]
    _, metric, _ = operands(1, tokens, 1, width, False, dtype)
    check_partners(metric, protected, relative_error)


@given(st.integers(1, 5000))
def test_two_powers_of_two_hold_all_channels(channels):
    width, rest = channel_blocks(channels)
    assert width.bit_count() == 1
    assert width >= 16
    assert rest == 0 or (rest.bit_count() == 1 and 16 <= rest < width)
    assert channels <= width + rest
    assert width + rest < channels + 16 or 3 * (width + rest) < 4 * channels


@pytest.mark.parametrize("capability", [80, 86, 90])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_tiles_cover_the_padding_of_the_norms(capability, dtype):
    for tokens, channels in itertools.product((2, 128, 129, 257, 4096), (7, 64, 96, 320, 384, 400, 1280)):
        blocks = partner_blocks(dtype, 8, tokens, channels, 132, capability)
        assert matching.PADDED_PAIRS % blocks["BLOCK_A"] == 0
        assert matching.PADDED_PAIRS % blocks["BLOCK_B"] == 0
        assert not blocks["RESIDENT"] or channels <= blocks["WIDTH"] + blocks["REST"]
        assert blocks["HAS_NORMS"] or tokens // 2 <= blocks["BLOCK_B"]


def test_equal_scores_take_the_lowest_partner(interpreter):
    metric = torch.ones(1, 150, 4)
    for backend in ("torch", "triton"):
        _, partner = best_partners(metric, (1, 3), backend=backend)
        assert (partner == 5).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_lowest_of_equals_wins_across_tiles(interpreter, dtype):
    """The twin in the earlier tile stands further back in its tile, and still comes first."""
    metric = torch.zeros(1, 290, 8, dtype=dtype)
    metric[0, 1::2, 0] = 1
    metric[0, 0::2, 1] = 1
    for destination in (30, 65, 129):
        metric[0, 2 * destination + 1] = metric[0, 0]
    for backend in ("torch", "triton"):
        score, partner = best_partners(metric, backend=backend)
        assert (score == 1).all()
        assert (partner == 61).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_without_a_receiver_every_score_is_minus_infinity(interpreter, dtype):
    metric = torch.randn(1, 9, 4).to(dtype)
    for backend in ("torch", "triton"):
        score, partner = best_partners(metric, (1, 3, 5, 7), backend=backend)
        assert (score == -torch.inf).all()
        assert (partner == 1).all()


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


@st.composite
def merges(draw):
    """Tokens, the chosen sources, partners (spread, few, or one alone), sizes."""
    batch, tokens = draw(st.integers(1, 2)), draw(st.integers(2, 70))
    sources, destinations = (tokens + 1) // 2, tokens // 2
    removed = draw(st.sampled_from((0, 1, sources // 2, sources)))
    receivers = draw(st.sampled_from((1, min(3, destinations), destinations)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    x = torch.randn(batch, tokens, draw(st.sampled_from((1, 3, 64, 70, 130))), generator=generator)
    chosen = torch.stack(
        [torch.randperm(sources, generator=generator)[:removed].sort().values for _ in range(batch)]
    ).int()
    allowed = torch.randperm(destinations, generator=generator)[:receivers]
    partner = 2 * allowed[torch.randint(receivers, (batch, sources), generator=generator)].int() + 1
    size = torch.randint(1, 9, (batch, tokens), generator=generator).float() if draw(st.booleans()) else None
    return x.to(draw(st.sampled_from((torch.float32, torch.float16)))), chosen, partner, size


def check_merge(relative_error, x, chosen, partner, size):
    found = merge_chosen(x, chosen, partner, size, backend="triton")
    wanted = merge_chosen(x, chosen, partner, size, backend="torch")
    for name in ("size", "kept", "source", "destination"):
        assert torch.equal(getattr(found, name), getattr(wanted, name))
        assert getattr(found, name).dtype == getattr(wanted, name).dtype
    assert relative_error(found.tokens, wanted.tokens) < {torch.float32: 2.0**-21, torch.float16: 2.0**-11}[x.dtype]
    again = merge_chosen(x, chosen, partner, size, backend="triton")
    assert torch.equal(found.tokens, again.tokens)


@given(merges())
@IN_INTERPRETER
def test_any_list_of_edges_is_merged(interpreter, relative_error, merge):
    check_merge(relative_error, *merge)


@given(merges())
@settings(IN_INTERPRETER, max_examples=10)
def test_a_plan_changes_no_bit(interpreter, merge):
    found = merge_chosen(*merge, backend="triton")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "SHORT_LIST", -1)
        planned = merge_chosen(*merge, backend="triton")
    for name in ("tokens", "size", "kept", "source", "destination"):
        assert torch.equal(getattr(found, name), getattr(planned, name))


@given(merges())
@IN_INTERPRETER
def test_lists_longer_than_a_tile(interpreter, relative_error, merge):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PLAN_LIST", "PLAN_JOINED", "PLAN_PAIRS"):
            patch.setattr(merge_plan, name, 16)
        patch.setattr(merging, "SHORT_LIST", -1)
        check_merge(relative_error, *merge)


@given(merges())
@settings(IN_INTERPRETER, max_examples=10)
def test_sources_are_added_in_ascending_order(interpreter, merge):
    x, chosen, partner, size = merge
    found = merge_chosen(x, chosen, partner, size, backend="triton")
    weight = torch.ones(x.shape[:2]) if size is None else size
    for b, (kept, source, destination) in enumerate(zip(found.kept, found.source, found.destination, strict=True)):
        for row, token in enumerate(kept.tolist()):
            joined = source[destination == token].tolist()
            if not joined:
                assert torch.equal(found.tokens[b, row], x[b, token])
                continue
            total = torch.zeros(x.shape[2])
            for other in joined:
                total = total + x[b, other].float() * weight[b, other]
            mean = (x[b, token].float() * weight[b, token] + total) / weight[b, [token, *joined]].sum()
            assert torch.equal(found.tokens[b, row], mean.to(x.dtype))


@given(
    st.integers(2, 24),
    st.integers(1, 40),
    st.floats(0, 1),
    st.sets(st.integers(0, 23), max_size=3),
    st.booleans(),
    st.integers(0, 2**31),
)
@IN_INTERPRETER
def test_separated_scores_give_the_edges_of_float64(
    interpreter, relative_error, tokens, width, share, protected, sized, seed
):
    x, metric, size = operands(2, tokens, 5, width, sized, torch.float32, seed)
    protected = tuple(token for token in protected if token < tokens)
    free = sum(token not in protected for token in range(0, tokens, 2))
    removed = round(share * free) if any(token not in protected for token in range(1, tokens, 2)) else 0
    unit = torch.nn.functional.normalize(metric.double(), dim=-1)
    score = unit[:, 0::2] @ unit[:, 1::2].mT
    best = score.amax(-1)
    # Equal directions in one channel tie exactly; everything else must be further apart than float32 rounds.
    assume(score.shape[2] < 2 or score.sort(-1).values.diff(dim=-1).min() > 1e-5)
    assume(best.shape[1] < 2 or best.sort(-1).values.diff(dim=-1).min() > 1e-5)
    found = bipartite_merge(x, metric, removed, size=size, protected=protected, backend="triton")
    wanted = bipartite_merge(x.double(), metric.double(), removed, size=size, protected=protected)
    for name in ("size", "kept", "source", "destination"):
        assert torch.equal(getattr(found, name), getattr(wanted, name))
    assert relative_error(found.tokens, wanted.tokens) < 2.0**-21
    weight = torch.ones(2, tokens) if size is None else size
    assert torch.equal(found.size.sum(1), weight.sum(1))
    mass = (x.double() * weight[..., None]).sum(1)
    assert ((found.tokens.double() * found.size[..., None]).sum(1) - mass).norm() < 1e-5 * weight.sum().sqrt() * 9
    again = bipartite_merge(x, metric, removed, size=size, protected=protected, backend="triton")
    assert torch.equal(found.tokens, again.tokens)


def test_operands_need_not_be_contiguous(interpreter):
    x, metric, size = operands(2, 21, 70, 20, True, torch.float16)
    wanted = bipartite_merge(x, metric, 6, size=size, protected=(0,), backend="triton")
    strided = torch.stack((x, x), 2)[:, :, 0], torch.cat((metric, metric), 1)[:, :21]
    turned = x.mT.contiguous().mT, metric.mT.contiguous().mT
    wide = size.repeat_interleave(2, 1)[:, ::2].double()
    for tokens, other in (strided, turned):
        found = bipartite_merge(tokens, other, 6, size=wide, protected=(0,), backend="triton")
        for name in ("tokens", "size", "kept", "source", "destination"):
            assert torch.equal(getattr(found, name), getattr(wanted, name))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("tokens", [8, 290])
def test_a_token_without_direction_is_similar_to_none(interpreter, dtype, tokens):
    metric = torch.randn(1, tokens, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    metric[0, 2] = 0
    metric[0, 5] = 0
    for backend in ("torch", "triton"):
        score, partner = best_partners(metric, backend=backend)
        assert score[0, 1] == 0
        assert partner[0, 1] == 1
    metric[0, 1::2] = -metric[0, 0]
    metric[0, 5] = 0
    for backend in ("torch", "triton"):
        score, partner = best_partners(metric, backend=backend)
        assert score[0, 0] == 0
        assert partner[0, 0] == 5


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
