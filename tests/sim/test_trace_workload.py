"""The published workloads: totals to the byte, counts of specification `accelerator`, section 1.6, errors by row and column."""

from __future__ import annotations

import gzip
from importlib.resources import files
from pathlib import Path

import pytest

from topsieve_sim.errors import InputError
from topsieve_sim.trace import WORKLOADS, Trace, load_workload, read_workload
from topsieve_sim.trace.ops import ColumnSum, QueryKey, TopK, TopKScope

PRUNED, DENSE = "gpt2-small-wikitext2-pruned", "gpt2-small-wikitext2-dense"


@pytest.fixture(scope="module")
def pruned() -> Trace:
    return load_workload(PRUNED)


@pytest.fixture(scope="module")
def dense() -> Trace:
    return load_workload(DENSE)


def csv_text(name: str = PRUNED) -> str:
    packed = (files("topsieve_sim.trace") / "data" / f"{name}.csv.gz").read_bytes()
    return gzip.decompress(packed).decode()


def test_totals_to_the_byte(pruned: Trace, dense: Trace) -> None:
    """82.4 MB against 2379.4 MB in FP32, 0.197 against 1.190 GFLOP.

    K's MSB plane and the kept V rows are 73,840,896 bytes; the 323 rows that need LSBs fetch a 4-bit plane of their own
    K each, 8,587,360 bytes; V has no LSB plane.
    """
    assert pruned.key_value_bytes == 82_428_256 == 73_840_896 + 8_587_360
    assert dense.key_value_bytes == 2_379_350_016
    assert pruned.flops == pruned.attention_flops == 196_909_056
    assert dense.flops == 1_189_675_008
    lsb_bits = sum(
        op.lsb_rows * op.keys * op.head_dim * op.key_lsb_bits for op in pruned.ops if isinstance(op, QueryKey)
    )
    assert lsb_bits // 8 == 8_587_360


def test_published_counts(pruned: Trace) -> None:
    groups = list(pruned.attention_groups())
    assert len(groups) == 4608 == 12 * 12 * 32
    assert (pruned.layers, pruned.heads) == (12, 12)
    assert sum(group.query_key.lsb_rows for group in groups) == 323
    keys = [921, 716] + [204] * 4 + [102] * 6
    values = {993: 204, 921: 184, 716: 143, 204: 40, 102: 20}
    for group in groups:
        op = group.query_key
        assert op.keys == (keys[op.layer] if op.step else 993)
        assert group.probability_value.kept == values[op.keys]
        assert group.value_topk is not None
        assert (op.query_bits, op.key_msb_bits, op.key_lsb_bits, op.threshold) == (16, 6, 4, 0.05)
        assert group.probability_value.value_bits == 6
    assert sum(isinstance(op, ColumnSum) for op in pruned.ops) == 4536


def test_the_cascade_selects_for_the_next_layer_or_token(pruned: Trace) -> None:
    steps = [op for op in pruned.ops if isinstance(op, TopK) and op.scope is TopKScope.TOKEN]
    assert len(steps) == 124
    assert {(op.layer, op.n, op.k) for op in steps if op.step == 5} == {
        (0, 921, 716),
        (1, 716, 204),
        (5, 204, 102),
        (11, 998, 921),
    }


def test_unquantised_is_32_bits(dense: Trace) -> None:
    group = next(dense.attention_groups())
    assert (group.query_key.query_bits, group.query_key.key_msb_bits, group.query_key.key_lsb_bits) == (32, 32, 0)
    assert group.probability_value.value_bits == 32
    assert group.value_topk is None
    assert group.column_sum is None


def test_plain_and_compressed_files_read_alike(tmp_path: Path, pruned: Trace) -> None:
    (tmp_path / f"{PRUNED}.csv").write_text(csv_text())
    (tmp_path / f"{PRUNED}.csv.gz").write_bytes(gzip.compress(csv_text().encode()))
    assert read_workload(tmp_path / f"{PRUNED}.csv") == read_workload(tmp_path / f"{PRUNED}.csv.gz") == pruned


HEADER, *ROWS = csv_text().splitlines()


@pytest.mark.parametrize(
    ("column", "value", "allowed"),
    [
        ("layer_id", "two", "a number"),
        ("layer_id", "-1", "an integer, at least 0"),
        ("head_id", "", "a number"),
        ("key_fetch_num", "0", "an integer, 1 to 993"),
        ("key_fetch_num", "994", "an integer, 1 to 993"),
        ("key_fetch_num", "9.5", "an integer"),
        ("key_fetch_num", "nan", "an integer"),
        ("value_fetch_num", "994", "an integer, 1 to 993"),
        ("quant_key_bit", "0", "1 to 32, or -1"),
        ("quant_query_bit", "33", "-1 to 32"),
        ("if_requant", "yes", "True, False"),
        ("embedding_length_D", "inf", "an integer, at least 1"),
    ],
)
def test_wrong_values_name_row_and_column(tmp_path: Path, column: str, value: str, allowed: str) -> None:
    cells = ROWS[1].split(",")
    cells[HEADER.split(",").index(column)] = value
    path = tmp_path / "wrong.csv"
    path.write_text("\n".join([HEADER, ROWS[0], ",".join(cells)]))
    with pytest.raises(InputError) as caught:
        read_workload(path)
    assert str(caught.value).startswith(f"{path}: row 2, column {column}: wrong value")
    assert allowed in str(caught.value)


def test_contradictions_between_columns_name_the_row(tmp_path: Path) -> None:
    path = tmp_path / "wrong.csv"
    cells = ROWS[0].split(",")
    cells[HEADER.split(",").index("auto_requant_incre")] = "27"
    path.write_text("\n".join([HEADER, ",".join(cells)]))
    with pytest.raises(InputError, match=r"wrong\.csv: row 1: query_key\.key_lsb_bits"):
        read_workload(path)


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "wrong.csv"
    path.write_text(HEADER.replace("key_fetch_num", "keys") + "\n" + ROWS[0])
    with pytest.raises(InputError, match=r"wrong\.csv: key_fetch_num: column is missing"):
        read_workload(path)
    path.write_text(HEADER)
    with pytest.raises(InputError, match="holds no rows"):
        read_workload(path)
    path.write_text(HEADER + "\n" + ROWS[0].rsplit(",", 3)[0])
    with pytest.raises(InputError, match="row 1, column"):
        read_workload(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a workload CSV"):
        read_workload(path)
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(csv_text().encode())[:500])
    with pytest.raises(InputError, match=r"cut\.csv\.gz: not a workload CSV"):
        read_workload(tmp_path / "cut.csv.gz")
    with pytest.raises(InputError, match="cannot read"):
        read_workload(tmp_path / "absent.csv")


def test_unknown_workloads_are_refused() -> None:
    with pytest.raises(InputError, match=DENSE):
        load_workload("gpt5")
    assert {PRUNED, DENSE} == set(WORKLOADS)
