"""Paragraphs of real text: deterministic, clean, and errors that name the file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from topsieve.corpus import Corpus, evenly_spaced, first_sentence, python_reference, read_corpus
from topsieve_sim.errors import InputError


def test_the_python_reference_is_prose() -> None:
    corpus = python_reference()
    assert len(corpus.paragraphs) == len(set(corpus.paragraphs)) == 128
    assert corpus == python_reference()
    for paragraph in corpus.paragraphs:
        assert 30 <= len(paragraph.split()) <= 70
        assert paragraph == " ".join(paragraph.split())
        assert re.match(r"[A-Z]", paragraph)
        assert paragraph.endswith(".")
        assert not re.search(r"\*{3}|={3}|::=", paragraph)


def test_queries_are_first_sentences() -> None:
    corpus = python_reference()
    queries = corpus.queries(32)
    assert len(queries) == 32
    assert all(any(paragraph.startswith(query) for paragraph in corpus.paragraphs) for query in queries)
    assert len(set(queries)) == 32
    assert first_sentence("One, e.g. this. Two.") == "One, e.g. this."
    assert first_sentence('Is it? "Yes." No.') == "Is it?"
    assert first_sentence("No end") == "No end"


@pytest.mark.parametrize(
    ("items", "count", "indices"), [(10, 5, [0, 2, 4, 6, 8]), (3, 5, [0, 1, 2]), (7, 3, [0, 2, 4])]
)
def test_even_spacing(items: int, count: int, indices: list[int]) -> None:
    names = tuple(str(index) for index in range(items))
    assert evenly_spaced(names, count) == tuple(str(index) for index in indices)
    with pytest.raises(InputError, match="at least 1"):
        evenly_spaced(names, 0)


def test_a_users_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("\n\nOne line\nand another.\n \t\n  Second, indented.\n\n\n", encoding="utf-8")
    assert read_corpus(path) == Corpus("text.txt", ("One line and another.", "Second, indented."))


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.txt: cannot read: No such file"):
        read_corpus(tmp_path / "absent.txt")
    with pytest.raises(InputError, match="cannot read"):
        read_corpus(tmp_path)
    path = tmp_path / "text.txt"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"text\.txt: holds no text"):
        read_corpus(path)
    path.write_text(" \n\t\n\n")
    with pytest.raises(InputError, match=r"text\.txt: holds no text"):
        read_corpus(path)
    path.write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"text\.txt: byte 3 is not UTF-8"):
        read_corpus(path)
