"""The leaderboard's page says what was measured, and its words hold for the numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from topsieve.leaderboard import BASELINES, FOLDER, PAGE, SETTINGS, draw, fronts, goodness, load_measured, methods, page
from topsieve.leaderboard_text import BEFORE_THE_QUESTION, WITH_THE_QUESTION
from topsieve_sim.errors import InputError

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def measured() -> list[dict]:
    return load_measured(DOCS / FOLDER)


@pytest.fixture(scope="module")
def quality(measured) -> dict[str, dict[str, float]]:
    return {one["facts"]["model"]: goodness(one) for one in measured}


def test_the_page_is_written_from_the_results(measured):
    assert (DOCS / PAGE).read_text(encoding="utf-8") == page(measured)
    for setting in SETTINGS:
        assert f"{FOLDER}/{setting.model}.png" in page(measured)
        assert (DOCS / FOLDER / f"{setting.model}.png").exists()


def test_every_method_is_a_row_or_has_a_reason(measured):
    for one in measured:
        shown = {row["method"] for row in one["rows"]} | set(one["refused"])
        # Methods that joined after the last measurement are not there yet; none has gone.
        assert shown <= set(methods())
        assert {"dense", "random"} <= {row["method"] for row in one["rows"]}
        assert len(shown) > 40


def test_nothing_beats_the_front(measured):
    for one in measured:
        good = goodness(one)
        for cost, names in fronts(one).items():
            rows = {row["method"]: row for row in one["rows"]}
            assert names
            for name, row in rows.items():
                beaten = [
                    other
                    for other, theirs in rows.items()
                    if theirs[cost] <= row[cost]
                    and good[other] >= good[name]
                    and (theirs[cost] < row[cost] or good[other] > good[name])
                ]
                assert (name in names) == (not beaten)


def test_the_words_hold(measured, quality):
    """The comparisons that the paragraphs make beside their numbers."""
    digits, mosaic, minilm = (quality[name] for name in ("digits-vit", "mosaic-llava", "minilm"))
    assert digits["uniform"] > digits["dense"] - 0.01
    assert minilm["spatten"] > minilm["uniform"]
    before = [mosaic[name] for name in BEFORE_THE_QUESTION if name in mosaic]
    assert min(mosaic[name] for name in WITH_THE_QUESTION) > max(before)
    gpt = {row["method"]: row["quality"]["recall_accuracy"] for row in measured[-1]["rows"]}
    assert gpt["snapkv"] < gpt["random"] < gpt["keydiff"]
    assert gpt["spatten"] > gpt["random"]
    perplexity = {row["method"]: row["quality"]["perplexity_ratio"] for row in measured[-1]["rows"]}
    assert perplexity["spatten"] > 1.1 > perplexity["random"]
    rows = {row["method"]: row for row in measured[0]["rows"]}
    share = {name: row["selection"]["cycles"] / row["cycles"] for name, row in rows.items()}
    assert share["tome"] > 3 * share["spatten"]
    assert rows["tome"]["cycles"] / rows["dense"]["cycles"] > rows["tome"]["flops"] / rows["dense"]["flops"]
    for one in measured:
        for row in one["rows"]:
            if row["method"] in BASELINES:
                assert row["selection"]["cycles"] < 0.05 * row["cycles"]


def test_equal_plots_are_equal_bytes(measured, tmp_path):
    for name in ("first.png", "second.png"):
        draw(measured[0], tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_missing_results_say_what_to_run(tmp_path):
    with pytest.raises(InputError, match=r"digits-vit\.json: cannot read: run make leaderboard"):
        load_measured(tmp_path)
