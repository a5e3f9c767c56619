"""The content-addressed store: results and traces by the hash of everything that they depend on.

    results/<digest>.jsonl   one line a point, with its key; written whole, never changed
    traces/<key>.npz         a workload, with operands where the model gave them
    quality/<key>.json       what a method keeps of a model's answer
    quarantine/<key>.json    a point that killed its worker twice

A name follows from the content, so sweeps may share a store, at the same time too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from topsieve.results import json_text, made_folder, write_text
from topsieve_sim.errors import InputError
from topsieve_sim.files import written_whole
from topsieve_sim.trace import Trace, save_trace

# Raised whenever the meaning of a stored line changes.
STORE_VERSION = 1

Row = Mapping[str, Any]


def digest(content: Any) -> str:
    """First 32 hex digits of the SHA-256 of plain data as JSON."""
    return hashlib.sha256(json_text(content).encode()).hexdigest()[:32]


class Store:
    """A folder of results and traces; made if missing.

    Raises
    ------
    InputError
        the folder cannot be made or written.
    """

    def __init__(self, folder: str | Path) -> None:
        self._results = made_folder(Path(folder) / "results")
        self._traces = made_folder(Path(folder) / "traces")
        self._quality = made_folder(Path(folder) / "quality")
        self._quarantine = made_folder(Path(folder) / "quarantine")

    def rows(self, wanted: Iterable[str]) -> dict[str, Row]:
        """The stored rows of the keys `wanted`, by key; a file that is damaged is as good as missing."""
        keys = set(wanted)
        found: dict[str, Row] = {}
        for path in sorted(self._results.glob("*.jsonl")):
            try:
                rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            except (OSError, ValueError):
                continue
            for row in rows:
                if isinstance(row, dict) and row.get("key") in keys:
                    found[row["key"]] = row
        return found

    def add(self, rows: Iterable[Row]) -> None:
        """Keep `rows`, each with its `key`: all of them or, when it fails, none."""
        text = "".join(json.dumps(row, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        if text:
            name = hashlib.sha256(text.encode()).hexdigest()[:32]
            with written_whole(self._results / f"{name}.jsonl") as stream:
                stream.write(text)

    def trace_path(self, key: str) -> Path:
        """Where the trace `key` is or will be."""
        return self._traces / f"{key}.npz"

    def has_trace(self, key: str) -> bool:
        """Whether the trace `key` is there."""
        return self.trace_path(key).is_file()

    def add_trace(self, trace: Trace, key: str) -> None:
        """Keep `trace` as `key`."""
        save_trace(trace, self.trace_path(key))

    def add_given_trace(self, trace: Trace) -> str:
        """Keep a trace that came from outside under the hash of its bytes, and return this key."""
        # Two writes of one trace are the same bytes, whatever file it came from.
        incoming = self._traces / ".incoming.npz"
        save_trace(trace, incoming)
        try:
            key = hashlib.sha256(incoming.read_bytes()).hexdigest()[:32]
            incoming.replace(self.trace_path(key))
        except OSError as error:
            raise InputError(f"cannot write: {error.strerror or error}", source=str(self._traces)) from error
        return key

    def quality(self, key: str) -> Mapping[str, Any] | None:
        """The stored measures of quality, if they are there."""
        return _read(self._quality / f"{key}.json")

    def add_quality(self, key: str, quality: Mapping[str, Any]) -> None:
        """Keep measures of quality."""
        write_text(self._quality / f"{key}.json", json_text(quality))

    def quarantined(self, key: str) -> Mapping[str, Any] | None:
        """Why the point `key` is not tried again, if so."""
        return _read(self._quarantine / f"{key}.json")

    def quarantine(self, key: str, facts: Mapping[str, Any]) -> None:
        """Do not try the point `key` again; `facts` say what it is."""
        write_text(self._quarantine / f"{key}.json", json_text(facts))

    def release(self, key: str) -> None:
        """Try the point `key` again."""
        (self._quarantine / f"{key}.json").unlink(missing_ok=True)


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None
