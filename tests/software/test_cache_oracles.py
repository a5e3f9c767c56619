"""Each cache method against a plain re-computation from its specification, on a layer of random queries, keys and values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import topsieve
from software.cache_oracle import Head, best, cosine, run
from software.decoders import prompt, tiny_decoder
from topsieve.cache.attention import attend
from topsieve.cache.budget import CacheBudget, PyramidBudget
from topsieve.cache.channels import QueryChannels
from topsieve.cache.roles import CacheContext, Taps
from topsieve.cache.scorers.layer_density import LayerDensity
from topsieve.reduction import AttentionPolicy, ModelShape

PROMPT, DECODED = 16, 5
BUDGET = 8  # keep 0.5


@pytest.fixture(scope="module")
def model():
    return tiny_decoder("gpt2", layers=1)


@pytest.fixture(scope="module")
def grouped():
    return tiny_decoder("llama", layers=1)


def ran(model, name):
    """The method at work on one layer: the session, and the operands of all tokens, taken from a dense run."""
    ids = prompt([PROMPT + DECODED])["input_ids"]
    with topsieve.reduce(model, "dense", operands=True) as dense:
        model(input_ids=ids)
        layer = dense.record.passes[0][0]
    query = layer.query.flatten(0, 1).detach().numpy()
    key, value = layer.key.detach().numpy(), layer.value.detach().numpy()
    states = []
    with topsieve.reduce(model, name) as r:
        out = model(input_ids=ids[:, :PROMPT])
        states.append(stored(r))
        for t in range(PROMPT, PROMPT + DECODED):
            out = model(input_ids=ids[:, t : t + 1], past_key_values=out.past_key_values)
            states.append(stored(r))
    return query, key, value, states, r


def stored(r):
    """For each head: {position: (key, value)} of what is in the cache now."""
    (layer,) = r._run.layers
    keys, values = (x[0].detach().numpy() for x in layer.whole())
    return [
        {int(c): (keys[h, n], values[h, n]) for n, c in enumerate(layer.columns[h]) if layer.occupied[h, n]}
        for h in range(len(keys))
    ]


def agree(model, name, decide):
    """Same slots after every pass, and the same content to float32 rounding of merge weights."""
    query, key, value, states, _ = ran(model, name)
    for snapshot, state in zip(run(query, key, value, PROMPT, decide), states, strict=True):
        for head, slots in zip(snapshot, state, strict=True):
            assert sorted(slots) == head.positions
            for slot in head.slots:
                for ours, wanted in zip(slots[slot["position"]], (slot["k"], slot["v"]), strict=True):
                    assert np.linalg.norm(ours - wanted) <= 1e-5 * np.linalg.norm(wanted)


def received(head: Head, join=sum) -> None:
    for slot in head.slots:
        here = [head.column_sum(slot["position"], member) for member in range(head.group)]
        slot["score"] = slot.get("score", 0.0) + join(here)


@pytest.mark.parametrize("fixture", ["model", "grouped"])
def test_h2o(fixture, request):
    def decide(heads, number):
        for head in heads:
            received(head)
            if len(head.slots) > BUDGET:
                recent = head.positions[-BUDGET // 2 :]
                old = head.slots[: -BUDGET // 2]
                head.keep(recent + best(old, lambda slot: slot["score"], BUDGET - BUDGET // 2))

    agree(request.getfixturevalue(fixture), "h2o:keep=0.5", decide)


def test_streaming_llm(model):
    def decide(heads, number):
        for head in heads:
            head.keep(head.positions[:2] + head.positions[2:][-6:])

    agree(model, "streaming-llm:keep=0.5,sinks=2", decide)
    agree(model, "streaming-llm:recent=6,sinks=2", decide)


@pytest.mark.parametrize("fixture", ["model", "grouped"])
def test_tova(fixture, request):
    def decide(heads, number):
        if len(heads[0].slots) <= BUDGET:
            return
        last = [rows[-1][1] for head in heads for rows in head.rows]
        kept = best(heads[0].slots, lambda slot: sum(row[slot["position"]] for row in last), BUDGET)
        for head in heads:
            head.keep(kept)

    agree(request.getfixturevalue(fixture), "tova:keep=0.5", decide)


def window_scores(head: Head, window: int, kernel: int, pool, mean: bool = False) -> dict[int, float]:
    """Pooled attention of the last queries on the slots before the window."""
    rows = [[row for _, row in rows[-window:]] for rows in head.rows]
    past = head.positions[:-window]
    plain = [sum(sum(row.get(p, 0.0) for row in member) for member in rows) / head.group for p in past]
    if mean:
        plain = [score / window for score in plain]
    half = kernel // 2
    padded = [0.0] * half + plain + [0.0] * half
    return {p: pool(padded[index : index + kernel]) for index, p in enumerate(past)}


def average(values):
    return sum(values) / len(values)


@pytest.mark.parametrize("fixture", ["model", "grouped"])
@pytest.mark.parametrize(("text", "pool"), [("average", average), ("maximum", max)])
def test_snapkv(fixture, text, pool, request):
    def decide(heads, number):
        if number:
            return
        for head in heads:
            scores = window_scores(head, 3, 3, pool)
            head.keep(
                head.positions[-3:] + best(head.slots[:-3], lambda slot, s=scores: s[slot["position"]], BUDGET - 3)
            )

    agree(request.getfixturevalue(fixture), f"snapkv:keep=0.5,window=3,kernel=3,pool={text}", decide)


def test_pyramidkv_layers_are_an_arithmetic_series():
    """Capacity 64, window 8, beta 20, 32 layers and a long prompt: b = 56, min 2, max 110, step 108 // 31 = 3."""
    budgets = [PyramidBudget(capacity=64, last=8, layer=layer, layers=32) for layer in range(32)]
    assert [b.quota(1000, 1000).total - 8 for b in budgets] == [110 - 3 * layer for layer in range(32)]
    # A prompt of 118 tokens (8 + 110): the first layer keeps everything, so max = 110, min = 2.
    assert budgets[0].quota(118, 118).total == 118
    # Between capacity and 2 b all layers keep b; under the capacity, everything.
    assert {b.quota(100, 100).total for b in budgets} == {64}
    assert {b.quota(60, 60).total for b in budgets} == {60}


def test_pyramidkv_scores_as_snapkv(model):
    def decide(heads, number):
        if number:
            return
        for head in heads:
            scores = window_scores(head, 2, 3, max)
            # One layer: max = 2 (8 - 2) - 6 // 4 = 11 free slots beside the window.
            head.keep(head.positions[-2:] + best(head.slots[:-2], lambda slot, s=scores: s[slot["position"]], 11))

    agree(model, "pyramidkv:keep=0.5,window=2,kernel=3,beta=4", decide)


@pytest.mark.parametrize("fixture", ["model", "grouped"])
@pytest.mark.parametrize(("alpha", "normalised"), [(0.0, False), (0.2, False), (0.2, True), (1.0, False)])
def test_adakv(fixture, alpha, normalised, request):
    def decide(heads, number):
        if number:
            return
        free = BUDGET - 2
        scores = [window_scores(head, 2, 3, max, mean=True) for head in heads]
        shares = [sum(sorted(own.values())[-free:]) / sum(own.values()) if normalised else 1 for own in scores]
        flat = sorted((-score * shares[h], h, p) for h, own in enumerate(scores) for p, score in own.items())
        winners = [h for _, h, _ in flat[: free * len(heads)]]
        for h, head in enumerate(heads):
            count = round(winners.count(h) * (1 - alpha) + math.floor(free * alpha))
            head.keep(head.positions[-2:] + best(head.slots[:-2], lambda s, own=scores[h]: own[s["position"]], count))

    agree(
        request.getfixturevalue(fixture),
        f"adakv:keep=0.5,window=2,kernel=3,alpha={alpha},normalised={str(normalised).lower()}",
        decide,
    )


@pytest.mark.parametrize("fixture", ["model", "grouped"])
def test_scissorhands(fixture, request):
    def decide(heads, number):
        for head in heads:
            queries = len(head.rows[0])
            for index in range(queries):
                rows = [member[index][1] for member in head.rows]
                for slot in head.slots:
                    if slot["position"] in rows[0]:
                        low = sum(row[slot["position"]] for row in rows) / len(rows) < 1 / len(rows[0])
                        slot.setdefault("low", []).append((head.rows[0][index][0], low))
            newest = head.rows[0][-1][0]
            count = {
                slot["position"]: sum(low for asked, low in slot["low"] if asked > newest - 6) for slot in head.slots
            }
            if len(head.slots) > BUDGET:
                total = BUDGET // 2 if len(head.slots) == BUDGET + 1 else BUDGET
                old = head.slots[:-2]
                head.keep(head.positions[-2:] + best(old, lambda s, c=count: -c[s["position"]], total - 2))

    agree(request.getfixturevalue(fixture), "scissorhands:keep=0.5,history=6,recent=2", decide)


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("knorm:keep=0.5,skip_layers=0", lambda head, slot: -np.linalg.norm(slot["k"])),
        (
            "keydiff:keep=0.5",
            lambda head, slot: (
                -cosine(slot["k"], np.mean([other["k"] / np.linalg.norm(other["k"]) for other in head.slots], axis=0))
            ),
        ),
    ],
)
def test_key_methods(model, name, score):
    def decide(heads, number):
        if number:
            return
        for head in heads:
            head.keep(best(head.slots, lambda slot, h=head: score(h, slot), BUDGET))

    agree(model, name, decide)


def test_expected_attention(grouped):
    """The mean of exp(q k / sqrt d) over many drawn future queries ranks the slots as the closed form does."""
    query, key, value, states, r = ran(grouped, "expected-attention:keep=0.5,sinks=2,future=8")
    width, inverse = key.shape[-1], r._decoder.rotary.frequencies.double().numpy()

    def turned(x, by):
        angle = by * inverse
        low, high = x[: width // 2], x[width // 2 :]
        return np.concatenate([low * np.cos(angle) - high * np.sin(angle), high * np.cos(angle) + low * np.sin(angle)])

    rotation = np.mean([[turned(e, t) for e in np.eye(width)] for t in range(PROMPT, PROMPT + 8)], axis=0).T
    for head in range(len(key)):
        total = np.zeros(PROMPT)
        for member in (2 * head, 2 * head + 1):
            past = np.array([turned(query[member, t], -t) for t in range(2, PROMPT)])
            mean = rotation @ past.mean(0)
            covariance = rotation @ np.cov(past.T, bias=True) @ rotation.T
            logits = np.array([k @ mean / width**0.5 + k @ covariance @ k / (2 * width) for k in key[head, :PROMPT]])
            weights = np.exp(logits[2:] - logits[2:].max())
            total[2:] += weights / weights.sum() / 2
        score = total * np.linalg.norm(value[head, :PROMPT], axis=-1)
        wanted = {0, 1, *(2 + np.argsort(-score[2:], kind="stable")[: BUDGET - 2]).tolist()}
        assert set(states[0][head]) == wanted


def test_think(grouped):
    query, key, _, _, r = ran(grouped, "think:drop=0.4,window=5")
    for head in range(len(key)):
        squares = (query[2 * head : 2 * head + 2, PROMPT - 5 : PROMPT] ** 2).mean((0, 1))
        score = squares * (key[head, :PROMPT] ** 2).mean(0)
        wanted = sorted(np.argsort(-score, kind="stable")[: 8 - int(0.4 * 8)].tolist())
        assert r._run.layers[0].channels[head].tolist() == wanted
    assert [QueryChannels(drop=d).kept_channels(10) for d in (0.0, 0.15, 0.4, 0.7)] == [10, 9, 6, 3]


def test_quest_reads_the_slots_of_its_best_pages(model):
    query, key, _, _, r = ran(model, "quest:budget=6,page_size=2,skip_layers=0")
    for number, t in enumerate(range(PROMPT, PROMPT + DECODED), start=1):
        for head in range(4):
            bound = {}
            for p in range(t + 1):
                page = bound.setdefault(p // 2, [np.full(8, np.inf), np.full(8, -np.inf)])
                page[0], page[1] = np.minimum(page[0], key[head, p]), np.maximum(page[1], key[head, p])
            q = query[head, t]
            score = {page: np.maximum(q * low, q * high).sum() for page, (low, high) in bound.items()}
            pages = sorted(score, key=lambda page: (-score[page], page))[:3]
            read = sum(1 for p in range(t + 1) if p // 2 in pages)
            assert int(r.record.passes[number][0].read[0, head]) == read


def test_attention_reads_what_is_chosen_and_live():
    """Against a masked softmax in numpy."""
    generator = torch.Generator().manual_seed(3)
    query, key, value = (torch.randn(*s, generator=generator).double() for s in ((2, 2, 3, 4), (2, 6, 4), (2, 6, 4)))
    valid = torch.rand(2, 6, generator=generator) < 0.8
    valid[:, -1] = True
    chosen = torch.rand(2, 2, 3, 6, generator=generator) < 0.7
    chosen[..., -1] = True
    live = torch.tensor([[True] * 3, [False, True, True]])
    seen = attend(
        query,
        key,
        value,
        valid=valid,
        columns=torch.tensor([[0, 1, 2, 4, 5, 3]] * 2),
        query_columns=torch.arange(3, 6),
        live_queries=live,
        heads=torch.ones(2, 2, dtype=torch.bool),
        scaling=0.3,
        taps=Taps(True, 2),
        chosen=chosen,
        policy=AttentionPolicy(),
    )
    columns = np.array([0, 1, 2, 4, 5, 3])
    total = np.zeros((2, 2, 6))
    for r in range(2):
        for g in range(2):
            for q in range(3):
                allowed = valid[r].numpy() & chosen[r, g, q].numpy() & (columns <= 3 + q)
                weights = np.where(allowed, np.exp(0.3 * (key[r] @ query[r, g, q]).numpy()), 0.0)
                weights /= weights.sum()
                assert np.allclose(seen.output[r, g, q].numpy(), weights @ value[r].numpy(), atol=1e-12)
                if live[r, q]:
                    total[r, g] += weights
                if q:
                    assert np.allclose(seen.window[r, g, q - 1].numpy(), weights * float(live[r, q]), atol=1e-12)
    assert np.allclose(seen.column_sum.numpy(), total, atol=1e-12)


def test_kvmerger(grouped):
    def decide(heads, number):
        for head in heads:
            received(head)
            if number:
                continue
            recent = head.positions[-2:]
            heavy = best(head.slots[:-2], lambda slot: slot["score"], 2)
            alone = {*recent, *heavy}
            runs: list[list[dict]] = []
            for slot in head.slots:
                follows = runs and slot["position"] not in alone and runs[-1][-1]["position"] not in alone
                if follows and cosine(runs[-1][-1]["k"], slot["k"]) > 0.2:
                    runs[-1].append(slot)
                else:
                    runs.append([slot])
            merged = []
            for members in runs:
                pivot = max(members, key=lambda slot: (slot["score"], -slot["position"]))
                gaps = [np.linalg.norm(slot["k"] - pivot["k"]) for slot in members]
                sigma = np.mean(gaps)
                weights = [math.exp(-(gap**2) / (2 * sigma**2)) if gap else 1.0 for gap in gaps]
                merged.append(dict(pivot))
                for part in "kv":
                    merged[-1][part] = sum(w * s[part] for w, s in zip(weights, members, strict=True)) / sum(weights)
            free = [slot for slot in merged if slot["position"] not in alone]
            kept = alone | set(best(free, lambda slot: slot["score"], BUDGET - len(alone)))
            head.slots = [slot for slot in merged if slot["position"] in kept]

    agree(grouped, "kvmerger:keep=0.5,threshold=0.2", decide)


def test_d2o(model):
    def decide(heads, number):
        gone = []
        for head in heads:
            received(head)
            old = head.slots[: -BUDGET // 2]
            score = {slot["position"]: np.inf if index == 0 else slot["score"] for index, slot in enumerate(head.slots)}
            kept = head.positions[-BUDGET // 2 :] + best(old, lambda s, c=score: c[s["position"]], BUDGET // 2)
            stay = [slot for slot in head.slots if slot["position"] in kept]
            found = []
            for slot in head.slots:
                if slot["position"] not in kept:
                    likes = [cosine(slot["k"], other["k"]) for other in stay]
                    found.append((slot, max(likes), likes.index(max(likes))))
            gone.append((head, stay, found))
        if not gone[0][2]:
            return
        mean = np.mean([m for _, _, found in gone for _, m, _ in found])
        before = heads[0].memory.get("threshold")
        threshold = mean if before is None else 0.5 * before + 0.5 * mean
        heads[0].memory["threshold"] = threshold
        passes = [np.mean([found[i][1] for _, _, found in gone]) >= threshold for i in range(len(gone[0][2]))]
        for head, stay, found in gone:
            sums = [[slot["k"].copy(), slot["v"].copy(), 1] for slot in stay]
            for (slot, m, target), ok in zip(found, passes, strict=True):
                if ok:
                    sums[target][0] += m * slot["k"]
                    sums[target][1] += m * slot["v"]
                    sums[target][2] += 1
            for slot, (k, v, count) in zip(stay, sums, strict=True):
                slot["k"], slot["v"] = k / count, v / count
            head.slots = stay

    agree(model, "d2o:keep=0.5,whole_first=0,whole_last=0,sinks=1", decide)


def test_d2o_layers_share_by_how_uneven_they_are():
    shape = ModelShape("toy", "toy", 3, 4, 2, 4, 16, 16)
    sums = torch.rand(3, 2, 2, 6, generator=torch.Generator().manual_seed(0)).double()
    contexts = [
        CacheContext(
            shape,
            layer,
            torch.ones(2, 6, dtype=torch.bool),
            torch.arange(6).expand(2, 6),
            torch.ones(2, 6),
            torch.full((2,), 6),
            {},
            column_sum=sums[layer],
            memory={},
        )
        for layer in range(3)
    ]
    LayerDensity(keep=0.4, whole_first=1, whole_last=0).spread(contexts)
    f = []
    for layer in sums.numpy():
        per_head = [np.var((c - c.min()) / (c.max() - c.min()), ddof=1) for row in layer for c in row]
        f.append(np.mean(per_head))
    shares = np.clip(3 * 0.4 * np.exp(-np.array(f)) / np.exp(-np.array(f)).sum(), 0.01, 1)
    assert contexts[0].memory["share"].tolist() == [1.0, 1.0]
    for layer in (1, 2):
        assert contexts[layer].memory["share"].numpy() == pytest.approx([shares[layer]] * 2, rel=1e-12)


def test_cam_expected(grouped):
    def decide(heads, number):
        for head in heads:
            received(head, average)
            kept = head.positions[:1] + head.positions[1:][-(BUDGET - 1) :]
            stay = [slot for slot in head.slots if slot["position"] in kept]
            for slot in head.slots:
                if slot["position"] in kept or number == 0:
                    continue
                behind = [other for other in stay if other["position"] > slot["position"]][:3]
                p = min(max(slot["score"] / np.mean([other["score"] for other in behind]), 0), 1)
                for other in behind:
                    other["v"] = other["v"] + p * slot["v"] / len(behind)
            head.slots = stay

    agree(grouped, "cam:keep=0.5,sinks=1,targets=3,expected=true", decide)


def test_cam_draws_all_or_nothing(grouped):
    """Each evicted value is added in whole thirds or not at all, and the same seed draws the same."""
    first, second = (ran(grouped, "cam:keep=0.5,sinks=1,targets=3")[3] for _ in range(2))
    whole = ran(grouped, "cam:keep=0.5,sinks=1,targets=3,expected=true")[3]
    plain = ran(grouped, "streaming-llm:keep=0.5,sinks=1,positions=original")[3]
    changed = 0
    for a, b, c, d in zip(first, second, whole, plain, strict=True):
        for one, two, expected, without in zip(a, b, c, d, strict=True):
            assert sorted(one) == sorted(expected) == sorted(without)
            for p, (k, v) in one.items():
                assert np.array_equal(v, two[p][1])
                assert np.array_equal(k, without[p][0])
                changed += not np.array_equal(v, without[p][1])
    assert changed


@pytest.mark.parametrize("norm", ["centre", "mean"])
def test_ems(grouped, norm):
    window, tau = 3, 0.1

    def decide(heads, number):
        for head in heads:
            for slot in head.slots:
                rows = [
                    (t, average([m[i][1].get(slot["position"], 0.0) for m in head.rows]))
                    for i, (t, _) in enumerate(head.rows[0])
                ]
                slot["total"] = slot.get("total", 0.0) + sum(a for _, a in rows)
                slot["recent"] = ([0.0] * window + slot.get("recent", []) + [a for _, a in rows])[-window:]
            if len(head.slots) <= BUDGET:
                continue
            totals = np.array([slot["total"] for slot in head.slots])
            local = np.array([sum(slot["recent"]) for slot in head.slots])
            c = local.mean() / totals.mean()
            if number == 0:
                assert c == pytest.approx(window / PROMPT)
            score = dict(zip(head.positions, np.maximum(c * totals, local), strict=True))
            old, last = head.slots[:-window], head.slots[-window:]
            important = best(old, lambda s, x=score: x[s["position"]], BUDGET - window)
            rest = [slot for slot in old if slot["position"] not in important]
            tbm = best(rest, lambda s, x=score: x[s["position"]], min(len(rest), BUDGET - window))
            centres = [slot for slot in old if slot["position"] in important]
            members = {slot["position"]: [slot] for slot in centres}
            for slot in rest:
                if slot["position"] in tbm:
                    r = [cosine(slot["k"], o["k"]) * cosine(slot["v"], o["v"]) for o in centres]
                    if max(r) >= tau:
                        members[centres[r.index(max(r))]["position"]].append(slot)
            merged = []
            for centre in centres:
                group = members[centre["position"]]
                new = dict(centre)
                if len(group) > 1:
                    s = np.array([score[m["position"]] for m in group])
                    s /= s.sum()
                    new["v"] = sum(w * m["v"] for w, m in zip(s, group, strict=True))
                    u = sum(w * m["k"] / np.linalg.norm(m["k"]) for w, m in zip(s, group, strict=True))
                    length = sum(w * np.linalg.norm(m["k"]) for w, m in zip(s, group, strict=True))
                    length = np.linalg.norm(centre["k"]) if norm == "centre" else length
                    new["k"] = length * u / np.linalg.norm(u)
                    new["total"] = sum(m["total"] for m in group)
                    new["recent"] = np.sum([m["recent"] for m in group], axis=0).tolist()
                merged.append(new)
            head.slots = merged + last

    agree(grouped, f"ems:keep=0.5,window={window},tau={tau},merge_norm={norm}", decide)


def test_ems_without_candidates_is_eviction(grouped):
    """Specification `methods-text`, section 1: gamma = 0 and tau > 1 are both plain eviction by the score."""
    plain, strict = (ran(grouped, f"ems:keep=0.5,window=3,{x}")[3] for x in ("gamma=0", "tau=1.5"))
    for a, b in zip(plain, strict, strict=True):
        for one, two in zip(a, b, strict=True):
            assert sorted(one) == sorted(two)
            assert all(np.array_equal(one[p], two[p]) for p in one)


def test_spatten_cascade():
    """Two layers, three passes, by hand: what layer 0 drops, layer 1 does not see.

    Sums are taken up to the last layer that drops tokens, as in the published traces.
    """
    two = tiny_decoder("gpt2", layers=2)
    ids = prompt([PROMPT + 2])["input_ids"]
    with topsieve.reduce(two, "spatten:keep=0.5,unpruned=0", operands=True) as r:
        out = two(input_ids=ids[:, :PROMPT])
        for t in (PROMPT, PROMPT + 1):
            out = two(input_ids=ids[:, t : t + 1], past_key_values=out.past_key_values)
    score = np.zeros(PROMPT + 2)
    previous: list[int] = []
    for number, (first, second) in enumerate(r.record.passes):
        tokens = PROMPT + number
        ((decision, among),) = first.cascade
        assert among.all()
        queries = range(PROMPT) if number == 0 else [tokens - 1]
        sums = np.zeros(PROMPT + 2)
        held = [int(p) for p in range(tokens)]
        for head in range(4):
            k = first.key[head][first.valid[head]].detach().numpy()
            q = first.query[head, 0].detach().numpy()
            for i, t in enumerate(queries):
                logits = q[i] @ k[: t + 1].T / math.sqrt(8)
                p = np.exp(logits - logits.max())
                sums[held[: t + 1]] += p / p.sum()
        score += sums
        kept = set(np.argsort(-score[:tokens], kind="stable")[: tokens // 2].tolist())
        assert decision.reduction.positions[0].tolist() == sorted(kept)
        alive = sorted(kept | {tokens - 1})
        seen = [p for p in alive if number == 0 or p == tokens - 1 or p in previous]
        assert second.slots.tolist() == [len(seen)] * 4
        assert int(second.queries[0]) == (len(alive) if number == 0 else 1)
        previous = seen


def test_budgets_say_what_stays():
    assert CacheBudget(keep=0.7).quota(10, 10).total == 7
    assert CacheBudget(keep=0.5, last_share=0.5, first=9).quota(10, 10).__dict__ == {"total": 5, "first": 3, "last": 2}
    assert CacheBudget(capacity=4).quota(4, 99).__dict__ == {"total": 4, "first": 0, "last": 0}
    assert CacheBudget(keep=0.01).quota(10, 10).total == 1
    with pytest.raises(ValueError, match="exactly one"):
        CacheBudget()
