"""The report page in a real browser: it runs without complaint or request, sorts, zooms, links and shows every point."""

from __future__ import annotations

import json

import pytest

from system.headless_browser import browser_path, open_browser
from topsieve.exploration.spec import SweepSpec
from topsieve.exploration.store import Store
from topsieve.exploration.sweep import run_sweep
from topsieve.exploration.sweep_files import write_results
from topsieve.report_page import comparison_page, read_sweep, sweep_page, write_page
from topsieve_sim.arch import load_config
from topsieve_sim.engine import simulate
from topsieve_sim.trace import save_trace
from topsieve_sim.validation.benchmarks import pruned_bert_trace
from topsieve_sim.validation.workloads import Encoder, bert_trace

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(browser_path() is None, reason="no browser on the path (scripts/system_packages.sh browser)"),
]
MODEL = Encoder(3, 4)
HOSTILE = "</script><b>bold</b>"


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def heard(tab):
    """The tab with nothing heard yet; at the end of the test it must have heard nothing that it should not."""
    tab.requests.clear()
    tab.complaints.clear()
    yield tab
    assert tab.complaints == []
    assert [url for url in tab.requests if not url.startswith(("file:", "data:"))] == []
    assert sum(url.startswith("file:") for url in tab.requests) == 1


@pytest.fixture(scope="module")
def reports():
    machine = load_config("spatten")
    traces = {"dense": bert_trace(MODEL, 40), "pruned": pruned_bert_trace(MODEL, 40), HOSTILE: bert_trace(MODEL, 24)}
    return {name: simulate(trace, machine) for name, trace in traces.items()}


@pytest.fixture(scope="module")
def comparison(reports, tmp_path_factory):
    metrics = [{"name": "cosine", "title": "cosine", "label": "mean cosine"}]
    quality = dict(zip(reports, (1.0, 0.9, 0.8), strict=True))
    results = [{"method": name, "metrics": metrics, "fidelity": {"cosine": value}} for name, value in quality.items()]
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(comparison_page(reports, results, {"h2o": "acts on the cache"}), path)
    return path


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    save_trace(pruned_bert_trace(MODEL, 24), folder / "pruned.npz")
    fields = {"memory.channels": [1, 4, 16], "softmax.lanes": [2, 8]}
    spec = SweepSpec.model_validate(
        {
            "name": "six",
            "accelerator": "spatten",
            "workload": {"traces": [str(folder / "pruned.npz")]},
            "fields": fields,
        }
    )
    write_results(run_sweep(spec, Store(folder / "store")), folder)
    found = read_sweep(folder)
    write_page(sweep_page(found), folder / "report.html")
    return folder / "report.html", found


def first_cells(tab, table):
    return tab.value(f"[...document.querySelectorAll('#table-{table} tbody th')].map((cell) => cell.textContent)")


def orders(tab, table):
    return tab.value(f"[...document.querySelectorAll('#table-{table} thead th')].map((head) => head.ariaSort)")


def count(tab, selector):
    return tab.value(f"document.querySelectorAll({json.dumps(selector)}).length")


def choose(tab, name, value):
    tab.value(
        f"(() => {{ const list = document.getElementById({json.dumps(name)}); list.value = {json.dumps(value)};"
        " list.dispatchEvent(new Event('change')); return list.value; })()"
    )


def test_tables_sort_by_pointer_and_by_keyboard(heard, comparison, reports):
    heard.open(comparison)
    assert first_cells(heard, "methods") == list(reports)
    by_cycles = sorted(reports, key=lambda name: reports[name].cycles)
    assert by_cycles != list(reports)
    heard.click("#table-methods thead th:nth-child(2) button")
    assert first_cells(heard, "methods") == by_cycles
    assert orders(heard, "methods")[:3] == ["none", "ascending", "none"]
    heard.value("document.querySelector('#table-methods thead th:nth-child(2) button').focus()")
    heard.key("Enter", "\r")
    assert first_cells(heard, "methods") == by_cycles[::-1]
    assert orders(heard, "methods")[1] == "descending"


def test_every_sweep_point_is_drawn_and_the_front_marked_on_any_axes(heard, sweep):
    path, found = sweep
    heard.open(path)
    assert count(heard, "#scatter .point") == len(found.rows) == 6
    assert count(heard, "#scatter .best") == len(found.front)
    drawn = heard.value(
        "[...document.querySelectorAll('#scatter .best')].map((node) => Number(node.dataset.key)).sort()"
    )
    assert drawn == sorted(found.values("point")[place] for place in found.front)
    before = heard.value("document.querySelector('#scatter svg').ariaLabel")
    choose(heard, "y-axis", "power_w")
    assert heard.value("document.querySelector('#scatter svg').ariaLabel") == before.replace("area (mm²)", "power (W)")
    assert count(heard, "#scatter .point") == 6
    heard.click(".controls input[type=checkbox]")
    assert count(heard, "#scatter .point") == 6
    assert "NaN" not in heard.value("document.querySelector('#scatter').innerHTML")


def test_a_hovered_or_focused_point_marks_its_row_and_tells_its_numbers(heard, comparison, reports):
    heard.open(comparison)
    heard.hover("#scatter .point[data-key=pruned]")
    linked = "[...document.querySelectorAll('tr.linked th')].map((cell) => cell.textContent)"
    assert heard.value(linked) == ["pruned"]
    tip = heard.value("document.getElementById('tip').innerText")
    assert f"duration (cycles): {reports['pruned'].cycles:,}" in tip
    assert heard.value("document.getElementById('tip').hidden") is False
    heard.hover("h1")
    assert heard.value(linked) == []
    assert heard.value("document.getElementById('tip').hidden") is True
    heard.value("document.querySelector('#scatter .best').focus()")
    assert len(heard.value(linked)) == 1


def test_stall_bars_fill_the_run_and_the_chosen_run_is_shown(heard, comparison, reports):
    heard.open(comparison)
    for name in ("dense", "pruned", HOSTILE):
        choose(heard, "run-name", name)
        assert f"{reports[name].cycles:,}" in heard.value("document.querySelector('#stalls figcaption').textContent")
        widths = heard.value(
            "[...document.querySelectorAll('#stalls .share')].map((bar) => [bar.dataset.unit, Number(bar.getAttribute('width'))])"
        )
        by_unit: dict[str, float] = {}
        for unit, width in widths:
            by_unit[unit] = by_unit.get(unit, 0.0) + width
        assert set(by_unit) == {row.unit.value for row in reports[name].units}
        # The bars' box is 690 wide.
        assert all(abs(width - 690) < 1e-6 for width in by_unit.values())
        assert count(heard, "#timeline .slice") == len(reports[name].timeline)
    assert count(heard, "b") == 0


def test_the_timeline_zooms_and_moves_and_stays_inside_the_run(heard, comparison, reports):
    heard.open(comparison)
    cycles = reports["dense"].cycles

    def view():
        return tuple(
            heard.value(f"Number(document.querySelector('.timeline').dataset.{key})") for key in ("start", "length")
        )

    assert view() == (0, cycles)
    heard.click("button[aria-label='zoom in']")
    assert view() == (cycles / 4, cycles / 2)
    heard.value("document.querySelector('.timeline').focus()")
    heard.key("ArrowRight")
    assert view() == (pytest.approx(cycles * 3 / 8), cycles / 2)
    heard.drag(".timeline", 100)
    assert view()[0] < cycles * 3 / 8
    for _ in range(12):
        heard.key("ArrowRight")
    assert sum(view()) == pytest.approx(cycles)
    assert 0 < count(heard, "#timeline .slice") < len(reports["dense"].timeline)
    heard.key("0", "0")
    assert view() == (0, cycles)


def test_the_roofline_has_every_run_and_dark_readers_get_a_dark_page(heard, comparison, reports):
    heard.open(comparison)
    assert count(heard, "#roofline .point[tabindex]") == len(reports)
    colours = set()
    for scheme in ("light", "dark"):
        heard.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        colours.add(heard.value("getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2


def test_the_page_itself_refuses_requests(tab, comparison):
    """The policy in the page works: a request that a script would make is stopped by the browser."""
    tab.open(comparison)
    tab.complaints.clear()
    assert tab.value("fetch('https://example.invalid/').then(() => 'loaded', () => 'stopped')") == "stopped"
    assert any("Content Security Policy" in text for text in tab.complaints)
