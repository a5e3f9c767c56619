"""Whole files or none, and errors of one line."""

import os
import resource
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topsieve_sim.errors import InputError
from topsieve_sim.files import written_whole


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")

    def interrupted():
        with written_whole(path) as stream:
            stream.write("new, but only half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.json"]


def test_a_finished_write_replaces_the_file_with_ordinary_permissions(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    with written_whole(path) as stream:
        stream.write("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    plain = tmp_path / "plain"
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode
    assert sorted(os.listdir(tmp_path)) == ["plain", "report.json"]


def test_binary_mode(tmp_path):
    with written_whole(tmp_path / "trace.bin", "wb") as stream:
        stream.write(b"\x00\xff")
    assert (tmp_path / "trace.bin").read_bytes() == b"\x00\xff"


def test_a_missing_folder_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="nowhere"), written_whole(tmp_path / "nowhere" / "a.txt") as stream:
        stream.write("x")


def test_a_file_that_outgrows_the_disk_is_an_input_error_and_leaves_nothing(tmp_path):
    """A file-size limit stands in for a full disk: the operating system refuses the same write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(InputError, match="cannot write"), written_whole(tmp_path / "big", "wb") as stream:
            stream.write(b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert os.listdir(tmp_path) == []


@given(problem=st.text(), value=st.text(), field=st.text(max_size=20))
def test_an_input_error_is_always_one_line(problem, value, field):
    assert len(str(InputError(problem, field=field, value=value)).splitlines()) <= 1
