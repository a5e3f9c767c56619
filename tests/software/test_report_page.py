"""The report page: one file that asks for nothing, holds the run's own numbers, and is the same bytes twice."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topsieve.exploration.spec import SweepSpec
from topsieve.exploration.store import Store
from topsieve.exploration.sweep import run_sweep
from topsieve.exploration.sweep_files import write_results
from topsieve.gpu import COLUMNS, gpu_cost, gpu_work, load_gpu
from topsieve.plots import PALETTE
from topsieve.report_page import SCRIPTS, comparison_page, page_html, read_sweep, run_page, sweep_page, write_page
from topsieve.report_page.columns import heading
from topsieve.report_page.content import front_rows
from topsieve.report_page.writing import script_json
from topsieve_sim.arch import load_config
from topsieve_sim.engine import simulate
from topsieve_sim.errors import InputError
from topsieve_sim.report import Report
from topsieve_sim.trace import save_trace
from topsieve_sim.validation.benchmarks import pruned_bert_trace
from topsieve_sim.validation.workloads import Encoder, bert_trace

# A method's name is the user's own text: nothing of it may become markup.
HOSTILE = "</script><script>alert(1)</script><!-- {{data}} \u2028 & \"'"
VOID = {"meta", "link", "br", "img", "input"}
# What makes a browser fetch something, and the namespaces and calls that look or act like it in a script.
LOADS = {"src", "href", "action", "data", "poster", "srcset", "formaction", "background"}


class Page(HTMLParser):
    """Elements that open and close in pairs, what they would load, and the data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.parts: dict[str, str] = {}
        self._part = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in LOADS]
        self._part = f"{tag} {dict(attrs).get('type', '')}".strip()
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._part = ""

    def handle_data(self, data: str) -> None:
        if self._part:
            self.parts[self._part] = self.parts.get(self._part, "") + data

    @property
    def data(self) -> dict:
        return json.loads(self.parts["script application/json"])


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    machine = load_config("spatten")
    model = Encoder(3, 4)
    return {
        HOSTILE: simulate(bert_trace(model, 40), machine),
        "pruned": simulate(pruned_bert_trace(model, 40), machine),
    }


@pytest.fixture(scope="module")
def compared(reports) -> str:
    metrics = [
        {"name": "cosine", "title": "cosine", "label": "mean cosine"},
        {"name": "perplexity", "title": "perplexity", "label": "of the next byte", "lower": True},
    ]
    gpu = load_gpu("h100-sxm")
    traces = {HOSTILE: bert_trace(Encoder(3, 4), 40), "pruned": pruned_bert_trace(Encoder(3, 4), 40)}
    results = [
        {
            "method": name,
            "metrics": metrics,
            "fidelity": {"cosine": 1.0 - place / 10, "perplexity": 3.0 + place},
            "gpu": gpu_cost(gpu_work(traces[name]), gpu).summary(report.latency_us, report.energy_total_pj),
        }
        for place, (name, report) in enumerate(reports.items())
    ]
    return page_html(comparison_page(reports, results, {"h2o": "acts on the cache"}, gpu.platform.title))


@pytest.fixture(scope="module")
def sweep_folder(tmp_path_factory) -> Path:
    """A real sweep of six machines."""
    folder = tmp_path_factory.mktemp("sweep")
    save_trace(pruned_bert_trace(Encoder(2, 2), 24), folder / "pruned.npz")
    spec = SweepSpec.model_validate(
        {
            "name": "six",
            "accelerator": "spatten",
            "workload": {"traces": [str(folder / "pruned.npz")]},
            "fields": {"memory.channels": [1, 4, 16], "softmax.lanes": [2, 8]},
        }
    )
    write_results(run_sweep(spec, Store(folder / "store")), folder)
    return folder


def column(table: dict, key: str) -> list:
    place = [entry["key"] for entry in table["columns"]].index(key)
    return [row[place] for row in table["rows"]]


def test_the_page_is_one_file_that_loads_nothing(compared) -> None:
    page = Page(compared)
    assert page.open == []
    assert page.loads == ["data:,"]
    assert page.tags.count("script") == 2
    assert page.tags.count("style") == 1
    assert re.findall(r"https?://[^\"'\s]*", compared) == ["http://www.w3.org/2000/svg"]
    assert "default-src 'none'" in compared
    code = page.parts["style"] + page.parts["script"]
    assert not re.search(
        r"url\((?!#)|@import|\bfetch\b|XMLHttpRequest|WebSocket|innerHTML|document\.write|\beval\b", code
    )


def test_every_script_of_the_package_is_in_the_page_once() -> None:
    folder = resources.files("topsieve.report_page").joinpath("scripts")
    assert sorted(item.name for item in folder.iterdir()) == sorted(SCRIPTS)
    assert len(set(SCRIPTS)) == len(SCRIPTS)


def test_names_never_become_markup(compared, reports) -> None:
    assert [row[0] for row in Page(compared).data["points"]["table"]["rows"]] == list(reports)
    assert "alert(1)</script>" not in compared


@settings(max_examples=40)
@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_data_comes_back_and_cannot_leave_its_element(data) -> None:
    text = script_json(data)
    assert json.loads(text) == data
    assert "<" not in text


def test_the_page_holds_the_numbers_of_the_reports(compared, reports) -> None:
    data = Page(compared).data
    table = data["points"]["table"]
    wanted = {
        "cycles": "cycles",
        "latency_us": "latency_us",
        "energy_pj": "energy_total_pj",
        "dram_bytes": "dram_bytes_total",
        "power_w": "power_w",
    }
    for key, attribute in wanted.items():
        assert column(table, key) == [getattr(report, attribute) for report in reports.values()]
    assert column(table, "cosine") == [1.0, 0.9]
    assert data["points"]["objectives"] == ["cycles", "energy_pj", "cosine"]
    assert [entry["better"] for entry in table["columns"][-2:]] == ["higher", "lower"]
    for run, report in zip(data["runs"], reports.values(), strict=True):
        assert run["cycles"] == report.cycles
        for shown, row in zip(run["units"], report.units, strict=True):
            assert shown["unit"] == row.unit
            assert sum(shown["cycles"].values()) == report.cycles
            assert shown["cycles"]["busy"] == row.busy_cycles
        tables = {table["id"]: table for table in run["tables"]}
        assert column(tables["layers"], "energy_pj") == [row.energy_pj for row in report.layers]
        assert sum(column(tables["dram"], "bytes")) == tables["dram"]["foot"][0][1] == report.dram_bytes_total
        timeline = run["timeline"]
        assert len(timeline["slices"]) == len(report.timeline)
        for (unit, start, length, busy, name), piece in zip(timeline["slices"], report.timeline, strict=True):
            assert (timeline["units"][unit], timeline["names"][name]) == (piece.unit, piece.name)
            assert (start, length, busy) == (piece.start_cycle, piece.duration_cycles, piece.busy_cycles)
    assert data["style"]["palette"] == list(PALETTE)


def test_a_gpu_stands_beside_the_accelerator(compared, reports) -> None:
    table = Page(compared).data["points"]["table"]
    assert ["GPU beside it", "NVIDIA H100 SXM", ""] in Page(compared).data["summary"]
    assert set(COLUMNS) <= {entry["key"] for entry in table["columns"]}
    assert column(table, "gpu_source") == ["roofline"] * 2
    for method, report in reports.items():
        row = column(table, "method").index(method)
        ratio = report.latency_us / column(table, "gpu_us")[row]
        assert column(table, "accelerator_over_gpu_time")[row] == pytest.approx(ratio)
    alone = comparison_page(reports, [{"method": name, "fidelity": {}} for name in reports], {})
    keys = {entry["key"] for entry in alone["points"]["table"]["columns"]}
    assert not keys & set(COLUMNS)
    assert all(name != "GPU beside it" for name, *_ in alone["summary"])


def test_headings_carry_units(compared) -> None:
    data = Page(compared).data
    tables = [data["points"]["table"], *(table for run in data["runs"] for table in run["tables"])]
    for table in tables:
        for entry in table["columns"]:
            ending = re.search(r"_(cycles|us|uj|pj|w|mm2|um2|bytes|flops|tflops)$", entry["key"])
            assert bool(entry["unit"]) or not ending, entry
            assert heading(entry["key"])[1] == entry["unit"]


def test_equal_runs_are_equal_pages_and_others_are_not(reports, tmp_path) -> None:
    for file, cut in (("a.html", 1), ("b.html", 1), ("c.html", 2)):
        write_page(run_page(f"run {cut}", reports["pruned"]), tmp_path / file)
    first, again, other = ((tmp_path / file).read_bytes() for file in ("a.html", "b.html", "c.html"))
    assert first == again != other


rows = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30)


@given(rows)
def test_no_point_beats_one_on_the_front_and_one_beats_each_other(points) -> None:
    columns = [
        {"key": "name", "better": None},
        {"key": "cycles", "better": "lower"},
        {"key": "quality", "better": "higher"},
    ]
    table = [["", *point] for point in points]
    front = front_rows(columns, table, ["cycles", "quality"])

    def beats(a, b) -> bool:
        return a[0] <= b[0] and a[1] >= b[1] and a != b

    for place, point in enumerate(points):
        assert (place in front) == (not any(beats(other, point) for other in points))


def test_a_sweep_is_shown_as_its_files_have_it(sweep_folder) -> None:
    data = Page(page_html(sweep_page(read_sweep(sweep_folder)))).data
    table = data["points"]["table"]
    with (sweep_folder / "results.csv").open(encoding="utf-8", newline="") as stream:
        written = list(csv.DictReader(stream))
    assert [entry["key"] for entry in table["columns"]] == list(written[0])
    for key in ("latency_cycles", "energy_pj", "memory.channels"):
        assert [str(value) for value in column(table, key)] == [row[key] for row in written]
    summary = json.loads((sweep_folder / "summary.json").read_text(encoding="utf-8"))
    numbers = column(table, "point")
    assert [numbers[place] for place in data["points"]["front"]] == [point["point"] for point in summary["front"]]
    # The page's own arithmetic finds the same front.
    assert front_rows(table["columns"], table["rows"], data["points"]["objectives"]) == data["points"]["front"]


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("results.csv", "", "not a table of a sweep"),
        ("results.csv", "a,b\n1,2\n", "not the results of a sweep"),
        ("summary.json", "{", "not the summary of a sweep"),
        ("summary.json", '{"name": "x"}', "not the summary of a sweep"),
        ("results.csv", None, "no point of the sweep was measured"),
    ],
)
def test_files_that_no_sweep_wrote_are_refused(sweep_folder, tmp_path, file, content, says) -> None:
    for name in ("results.csv", "summary.json"):
        (tmp_path / name).write_bytes((sweep_folder / name).read_bytes())
    header = (tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()[0]
    (tmp_path / file).write_text(header + "\n" if content is None else content, encoding="utf-8")
    with pytest.raises(InputError, match=says):
        read_sweep(tmp_path)
