"""Compaction inside models against its text re-implemented with plain loops, and the work it is lowered to."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topsieve.compaction.blank_tokens import (
    dropped,
    keep_only,
    merged,
    redundant,
    repaired,
    replacement_work,
    without_redundant,
)
from topsieve.compaction.cluster_attention import (
    Clusters,
    cluster_map,
    clustered_attention,
    clustering_work,
    density,
    first_centres,
    is_dense,
    k_means,
    k_means_of_heads,
    with_context,
)
from topsieve.compaction.core_context import (
    CoreContextCache,
    core_context_attention,
    core_context_work,
    pooled_groups,
    visible,
)
from topsieve.compaction.latent_tokens import latent_rows, nearest_codes, nearest_codes_work
from topsieve.compaction.learned_queries import draft_input, pool_by_queries, pool_work, rearranged
from topsieve.compaction.prefix_tokens import FLEXTOK_LEVELS, finite_scalars, keep_prefix, pooled_queries, scalars_of
from topsieve.compaction.registers import exchange, exchange_work, with_registers
from topsieve.compaction.scalar_quantiser import gaussian_levels, quantise
from topsieve.compaction.window_memory import look_again, look_again_work, windows
from topsieve_sim.trace import Trace
from topsieve_sim.trace.ops import Similarity

BOUNDED = settings(max_examples=25, deadline=None)
SEEDS = st.integers(0, 10_000)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same(got: torch.Tensor, wanted: torch.Tensor) -> None:
    """Equal to a few thousand roundings of float64."""
    assert got.shape == wanted.shape
    assert (got - wanted).norm() <= 1e-12 * wanted.norm()


def test_gaussian_levels_are_means_of_equal_cells() -> None:
    normal = NormalDist()
    levels = gaussian_levels(64)
    assert (levels.diff() > 0).all()
    assert torch.allclose(levels, -levels.flip(0), atol=1e-4)
    for cell in range(1, 63):
        low, high = normal.inv_cdf(cell / 64), normal.inv_cdf((cell + 1) / 64)
        mean = (normal.pdf(low) - normal.pdf(high)) * 64
        # Borders and levels are float32.
        assert math.isclose(float(levels[cell]), mean, rel_tol=1e-3, abs_tol=1e-4)
    with pytest.raises(ValueError, match="at least two"):
        gaussian_levels(1)


@given(seed=SEEDS, bits=st.integers(1, 6))
@BOUNDED
def test_quantiser_takes_the_nearest_level(seed: int, bits: int) -> None:
    values = drawn(200, seed=seed).float() * 2
    number, value = quantise(values, bits)
    levels = gaussian_levels(2**bits)
    for x, n, back in zip(values.tolist(), number.tolist(), value.tolist(), strict=True):
        scaled = np.float32(min(max((x + 5) / 10 * 6 - 3, -3), 3))
        gaps = [abs(float(scaled) - float(level)) for level in levels]
        assert gaps[n] <= min(gaps) + 1e-6
        assert math.isclose(back, (float(levels[n]) + 3) / 6 * 10 - 5, abs_tol=1e-5)
    assert quantise(value, bits)[0].equal(number) or bits < 3  # coarse levels are not fixed points of the cut-off


@given(seed=SEEDS)
@BOUNDED
def test_finite_scalars(seed: int) -> None:
    latents = drawn(40, 6, seed=seed) * 2
    codes, index = finite_scalars(latents)
    basis = [1, 8, 64, 512, 2560, 12800]
    for row in range(40):
        total = 0
        for d, levels in enumerate(FLEXTOK_LEVELS):
            half = (levels - 1) * (1 + 1e-3) / 2
            offset = 0.5 if levels % 2 == 0 else 0.0
            q = round(math.tanh(float(np.float32(latents[row, d])) + math.atanh(offset / half)) * half - offset)
            assert float(codes[row, d]) == pytest.approx(q / (levels // 2))
            total += (q + levels // 2) * basis[d]
        assert int(index[row]) == total
    assert scalars_of(index).equal(codes)
    assert int(index.max()) < math.prod(FLEXTOK_LEVELS) == 64000


def test_a_prefix_hides_the_rest() -> None:
    tokens, mask = drawn(3, 5, 2), drawn(2, seed=1)
    out = keep_prefix(tokens, torch.tensor([0, 2, 9]), mask)
    assert out[0].equal(mask.expand(5, 2))
    assert out[1, :2].equal(tokens[1, :2])
    assert out[1, 2:].equal(mask.expand(3, 2))
    assert out[2].equal(tokens[2])


def test_pooled_queries_are_averages_of_halved_blocks() -> None:
    features = drawn(2, 3, 16, 16)
    queries = pooled_queries(features)
    assert queries.shape == (2, 256, 3)
    same(queries[:, 0], features.mean((2, 3)))
    same(queries[:, 1], queries[:, 0])
    same(queries[:, 2], features[..., :8].mean((2, 3)))
    same(queries[:, 4 + 1], features[:, :, :8, 8:].mean((2, 3)))
    same(queries[:, 128], features[:, :, :2, :1].mean((2, 3)))


@given(tokens=st.integers(1, 40), group=st.integers(1, 5), window=st.integers(1, 12))
@BOUNDED
def test_pools_and_window_tile_the_past_once(tokens: int, group: int, window: int) -> None:
    seen = visible(tokens, group, window)
    pools = seen.shape[1] - tokens
    assert pools == max((tokens - window) // group, 0)
    for row in range(1, tokens + 1):
        pooled = max((row - window) // group, 0)
        covered = [p * group + j for p in range(pools) if seen[row - 1, p] for j in range(group)]
        assert len(covered) == pooled * group
        covered += [c for c in range(tokens) if seen[row - 1, pools + c]]
        assert sorted(covered) == list(range(row))


@given(tokens=st.integers(1, 24), seed=SEEDS)
@BOUNDED
def test_core_context_attention(tokens: int, seed: int) -> None:
    group, window = 3, 5
    query, key, value = (drawn(1, 2, tokens, 4, seed=seed + i) for i in range(3))
    out = core_context_attention(query, key, value, group, window)
    for h in range(2):
        q, k, v = query[0, h].numpy(), key[0, h].numpy(), value[0, h].numpy()
        for row in range(1, tokens + 1):
            pooled = max((row - window) // group, 0)
            keys, values = [], []
            for m in range(pooled):
                places = range(m * group, (m + 1) * group)
                weight = np.exp([q[places[-1]] @ k[j] / 2 for j in places])
                weight = weight / weight.sum()
                keys.append(sum(w * k[j] for w, j in zip(weight, places, strict=True)))
                values.append(sum(w * v[j] for w, j in zip(weight, places, strict=True)))
            keys += [k[j] for j in range(pooled * group, row)]
            values += [v[j] for j in range(pooled * group, row)]
            weight = np.exp([q[row - 1] @ x / 2 for x in keys])
            wanted = sum(w * x for w, x in zip(weight / weight.sum(), values, strict=True))
            same(out[0, h, row - 1], torch.from_numpy(np.asarray(wanted)))
    assert pooled_groups(query, key, value, group, 0)[0].shape == (1, 2, 0, 4)


@given(tokens=st.integers(1, 40), group=st.integers(2, 5), windows=st.integers(1, 3))
@BOUNDED
def test_the_published_mask_sees_the_first_pool_early(tokens: int, group: int, windows: int) -> None:
    """Where the window is a multiple of the group: group - 1 rows see the first group twice, all others as the paper has it."""
    window = windows * group
    paper, official = (visible(tokens, group, window, variant) for variant in ("paper", "official"))
    for row in range(1, tokens + 1):
        twice = window < row < window + group and tokens >= window + group
        different = (paper[row - 1] != official[row - 1]).nonzero().flatten().tolist()
        assert different == ([0] if twice else [])
    odd = visible(tokens, group, window + 1, "official")
    for row in range(1, tokens + 1):
        near = int(odd[row - 1, -tokens:].sum())
        assert near == (min(row, row % group + window + 1) if odd.shape[1] > tokens else row)


@given(prompt=st.integers(1, 20), new=st.integers(1, 12), seed=SEEDS)
@BOUNDED
def test_decoding_over_pools_is_the_whole_attention(prompt: int, new: int, seed: int) -> None:
    group, window, total = 3, 5, prompt + new
    rows = [drawn(1, 2, total, 4, seed=seed + i) for i in range(3)]
    wanted = core_context_attention(*rows, group, window)
    cache = CoreContextCache(group, window)
    same(cache.attend(*(x[:, :, :prompt] for x in rows)), wanted[:, :, :prompt])
    for place in range(prompt, total):
        same(cache.attend(*(x[:, :, place : place + 1] for x in rows)), wanted[:, :, place : place + 1])
        assert cache.held <= window + group + max(place + 1 - window, 0) // group
    with pytest.raises(ValueError, match="one by one"):
        cache.attend(*(x[:, :, :2] for x in rows))


def test_untrimmed_layers_pool_the_first_group_again() -> None:
    rows = [drawn(1, 1, 9, 2, seed=i) for i in range(3)]
    caches = [CoreContextCache(2, 2, trims=trims) for trims in (True, False)]
    outs = [torch.cat([cache.attend(*(x[:, :, i : i + 1] for x in rows)) for i in range(9)], 2) for cache in caches]
    same(outs[0][:, :, :5], outs[1][:, :, :5])
    assert (outs[0] - outs[1])[:, :, 5:].abs().max() > 1e-3
    assert (caches[0].held, caches[1].held) == (3 + 3, 3 + 9)


def test_core_context_work_is_ten_times_less_at_65536_tokens() -> None:
    """Specification `methods-vision`, 13.3: 3.05 thousand keys a row on average instead of 32.8 thousand."""
    trace = Trace(core_context_work(heads=1, tokens=65_536, head_dim=128))
    attended = sum(group.query_key.queries * group.query_key.keys for group in trace.attention_groups())
    rows = sum(group.query_key.queries for group in trace.attention_groups())
    assert rows == 65_536
    # A block of 16 rows reads the keys of its last one; rows before the first pool are one block.
    assert attended / rows == pytest.approx(3_050, rel=0.02)
    assert 32_768 / (attended / rows) == pytest.approx(10.7, rel=0.02)


def test_learned_queries_pool_and_their_work() -> None:
    queries, hidden = drawn(3, 4), drawn(2, 7, 4, seed=1)
    out = pool_by_queries(queries, hidden)
    for b, c in itertools.product(range(2), range(3)):
        weight = np.exp(hidden[b].numpy() @ queries[c].numpy())
        same(out[b, c], torch.from_numpy(weight / weight.sum() @ hidden[b].numpy()))
    # 2 x 64 x 576 x 4096 MACs: 0.30 G (specification `methods-vision`, 10.3).
    assert Trace(pool_work(64, 576, 4096)).macs == 2 * 64 * 576 * 4096


def test_a_draft_reads_text_around_the_pooled_image() -> None:
    mixed, hidden, queries = drawn(2, 9, 4), drawn(2, 9, 4, seed=1), drawn(3, 4, seed=2)
    joined, positions = draft_input(mixed, hidden, queries, slice(2, 7))
    assert positions.tolist() == list(range(9 - 5 + 3))
    same(joined[:, :2], mixed[:, :2])
    same(joined[:, 2:5], pool_by_queries(queries, hidden[:, 2:7]))
    same(joined[:, 5:], mixed[:, 7:])


def test_predictions_are_rearranged_by_offset() -> None:
    predictions = drawn(7, 5, 3)
    out = rearranged(predictions, pad=-9.0)
    filled = set()
    for offset, place in itertools.product(range(5), range(7)):
        if place < 7 - offset:
            assert out[offset * 8 + place].equal(predictions[place, offset])
            filled.add(offset * 8 + place)
    assert all((out[row] == -9.0).all() for row in range(35) if row not in filled)


@given(seed=SEEDS)
@BOUNDED
def test_k_means_ends_at_its_means(seed: int) -> None:
    x = drawn(60, 3, seed=seed)
    found = k_means(x, x[:5].clone(), 50)
    for token in range(60):
        gaps = ((x[token] - found.centres) ** 2).sum(1)
        assert float(gaps[found.labels[token]]) <= float(gaps.min()) + 1e-3
    assert found.sizes.tolist() == [int((found.labels == c).sum()) for c in range(5)]
    empty = k_means(x, torch.cat([x[:2], torch.full((1, 3), 1e6, dtype=torch.float64)]), 3)
    assert empty.sizes[2] == 0
    assert empty.centres[2].equal(torch.full((3,), 1e6, dtype=torch.float64))


def test_heads_stop_together() -> None:
    """A head that has converged goes on while another moves, so centres of both are means of their labels."""
    still = torch.tensor([[0.0], [0.0], [4.0], [4.0]], dtype=torch.float64)
    moving = drawn(4, 1)
    centres = torch.stack([still[[0, 2]], moving[:2]])
    found = k_means_of_heads(torch.stack([still, moving]), centres, 1)
    assert found[0].centres.equal(centres[0])
    assert not found[1].centres.equal(centres[1])
    for rows, clusters in zip((still, moving), found, strict=True):
        for c in range(2):
            same(clusters.centres[c], rows[clusters.labels == c].mean(0))
    low = k_means_of_heads(torch.stack([still, moving]).bfloat16(), centres.bfloat16(), 3)
    assert low[0].centres.dtype == torch.bfloat16
    draw = torch.Generator().manual_seed(0)
    assert all((moving == row).all(-1).any() for row in first_centres(moving, 6, draw))


def test_map_of_bfloat16_adds_up_in_bfloat16() -> None:
    key = Clusters(torch.zeros(300, dtype=torch.int64), torch.zeros(300, 4).bfloat16(), torch.ones(300).long())
    query = Clusters(torch.zeros(1, dtype=torch.int64), torch.ones(1, 4).bfloat16(), torch.ones(1).long())
    total, kept = torch.zeros((), dtype=torch.bfloat16), 0
    share = torch.tensor(1 / 300).bfloat16()
    while kept < 300 and total <= 0.9:
        total, kept = torch.full((kept + 1,), float(share)).bfloat16().cumsum(0)[-1], kept + 1
    assert int(cluster_map(query, key, 0.9, 0.0).sum()) == kept


def test_context_tokens_and_dense_steps() -> None:
    reads = torch.tensor([[True, False, False], [False, False, True]])
    whole = with_context(reads)
    assert whole[:2, :3].equal(reads)
    assert whole[2].tolist() == [True, True, True, True, False]
    assert whole[:, 3].tolist() == [True, True, True, False]
    assert whole[3].tolist() == [False, False, False, False, True]
    assert [layer for layer in range(40) if is_dense(layer, 40, 25, 50)] == [0]
    assert [step for step in range(50) if is_dense(5, 40, step, 50)] == list(range(10))


@given(seed=SEEDS, mass=st.sampled_from([0.3, 0.9]), least=st.sampled_from([0.1, 0.5]))
@BOUNDED
def test_cluster_map(seed: int, mass: float, least: float) -> None:
    query, key = k_means(drawn(30, 4, seed=seed), drawn(4, 4, seed=seed + 1), 3), None
    key = k_means(drawn(40, 4, seed=seed + 2), drawn(6, 4, seed=seed + 3), 3)
    reads = cluster_map(query, key, mass, least)
    for row in range(4):
        weight = [
            int(size) * math.exp(float(query.centres[row] @ centre) / 2)
            for size, centre in zip(key.sizes, key.centres, strict=True)
        ]
        order = sorted(range(6), key=lambda j: -weight[j])
        before, kept = 0.0, set()
        for rank, j in enumerate(order):
            if rank == 0 or before <= mass or rank < int(least * 6):
                kept.add(j)
            before += weight[j] / sum(weight)
        assert set(reads[row].nonzero().flatten().tolist()) == kept


@given(seed=SEEDS)
@BOUNDED
def test_clustered_attention_is_masked_attention(seed: int) -> None:
    query, key, value = (drawn(25, 4, seed=seed + i) for i in range(3))
    of_query, of_key = (k_means(x, x[:4].clone(), 2) for x in (query, key))
    reads = cluster_map(of_query, of_key, 0.6, 0.1)
    # A row that reads only empty clusters would attend to nothing.
    reads = reads | (of_key.sizes == of_key.sizes.max())
    allowed = reads[of_query.labels][:, of_key.labels]
    wanted = (query @ key.T / 2).masked_fill(~allowed, float("-inf")).softmax(-1) @ value
    same(clustered_attention(query, key, value, of_query, of_key, reads), wanted)
    assert density(of_query, of_key, reads) == pytest.approx(float(allowed.double().mean()))
    assert isinstance(of_query, Clusters)


def test_clustering_work_of_a_video() -> None:
    """Two iterations on 75 600 tokens in 300 and 1000 clusters: 25 GMAC a head (specification `methods-vision`, 11.2)."""
    ops = clustering_work(75_600, 300, 1000, 128, iterations=2)
    distances = sum(op.macs for op in ops if isinstance(op, Similarity) and op.rows_a == 75_600)
    assert distances == 2 * 75_600 * 1300 * 128
    assert round(distances / 1e9) == 25


def test_blanked_and_repaired_tokens() -> None:
    hidden, blank, alone = drawn(6, 2), drawn(6, 2, seed=1), drawn(4, 2, seed=2)
    kept = torch.tensor([True, False, True, True, False, True])
    out = keep_only(hidden, blank, kept)
    assert out[kept].equal(hidden[kept])
    assert out[~kept].equal(blank[~kept])
    assert without_redundant(hidden, blank, [([0, 1, 2], [2]), ([4, 5], [4, 5])]).equal(
        torch.stack([blank[0], blank[1], hidden[2], hidden[3], hidden[4], hidden[5]])
    )
    fixed = repaired(hidden, [3, 4], alone, [1, 2])
    assert fixed[3:5].equal(alone[1:3])
    assert fixed[[0, 1, 2, 5]].equal(hidden[[0, 1, 2, 5]])
    assert dropped(hidden, kept).equal(hidden[kept])
    same(merged(hidden, [1, 4])[[1, 4]], hidden[[1, 4]].mean(0).expand(2, 2))
    found = redundant(hidden, drawn(2, seed=3), -0.2)
    assert found.equal(hidden @ drawn(2, seed=3) > 0.2)
    assert [op.kind for op in replacement_work(6, 2, 4)] == ["projection", "gather"]
    with pytest.raises(ValueError, match="item of 2 tokens"):
        repaired(hidden, [3, 4], alone, [1])


def test_registers_exchange_within_an_image() -> None:
    patches, registers = drawn(5, 6, 4), drawn(2, 4, seed=1)
    rows, columns = drawn(5, 4, seed=2), drawn(5, 4, seed=3)
    x = with_registers(patches, registers, rows, columns)
    assert x[:, :6].equal(patches)
    same(x[3, 7], registers[1] + 0.5 * (rows[3] + columns[3]))

    seen: list[torch.Tensor] = []

    def interact(together: torch.Tensor) -> torch.Tensor:
        seen.append(together)
        return together.mean(1, keepdim=True).expand(together.shape)

    out = exchange(x, 2, [3, 2], interact)
    assert [part.shape[1] for part in seen] == [6, 4]
    assert out[:, :6].equal(x[:, :6])
    same(out[4, 7], x[4, 7] + x[3:, 6:].mean((0, 1)))
    # 4 Tr D^2 + 2 Tr^2 D MACs with Tr = 640 registers (specification `methods-vision`, 8.3).
    macs = Trace(exchange_work(heads=16, head_dim=72, registers=64, crops=10)).macs
    assert macs == 4 * 640 * 1152**2 + 2 * 640**2 * 1152


def test_tokens_look_at_their_own_window() -> None:
    features = drawn(2, 6, 6, 4)
    cut = windows(features, 3)
    assert cut.shape == (2, 9, 4, 4)
    assert cut[1, 5].equal(features[1, 2:4, 4:6].flatten(0, 1))
    query = drawn(2, 9, 4, seed=1)
    out = look_again(query, cut, cut * 2, heads=2)
    for token, head in itertools.product(range(9), range(2)):
        part = slice(2 * head, 2 * head + 2)
        keys = cut[0, token, :, part].numpy()
        weight = np.exp(keys @ query[0, token, part].numpy() / math.sqrt(2))
        same(out[0, token, part], torch.from_numpy(weight / weight.sum() @ keys * 2))
    with pytest.raises(ValueError, match="cannot be cut"):
        windows(features, 4)
    # 576 x 2 d MACs whatever the number of tokens (specification `methods-vision`, section 9).
    for tokens in (64, 144, 576):
        assert Trace(look_again_work(tokens, 576 // tokens, heads=8, head_dim=128)).macs == 576 * 2 * 1024


def test_latents_take_the_nearest_code_on_the_sphere() -> None:
    latents, codes = drawn(2, 5, 3).float(), drawn(11, 3, seed=1).float()
    number, vector = nearest_codes(latents, codes)
    for b, i in itertools.product(range(2), range(5)):
        cosines = [float(torch.cosine_similarity(latents[b, i], code, dim=0)) for code in codes]
        assert cosines[int(number[b, i])] >= max(cosines) - 1e-6  # float32
        assert torch.allclose(vector[b, i], codes[number[b, i]] / codes[number[b, i]].norm())
    assert nearest_codes(codes[:1], torch.cat([codes[:1] * 2, codes[:1]]))[0].tolist() == [0]
    encoded = drawn(1, 9, 4, seed=2)
    assert latent_rows(encoded, 3, legacy=False)[0].equal(encoded[0, -3:].T)
    assert latent_rows(encoded, 3)[0].equal(encoded[0, -3:].flatten().reshape(4, 3))
    assert Trace(nearest_codes_work(32, 4096, 12)).flops == 2 * 32 * 4096 * 12
