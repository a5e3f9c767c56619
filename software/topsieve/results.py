"""The folder that a command writes its results into."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from topsieve_sim.errors import InputError
from topsieve_sim.files import written_whole

# What a result can depend on beside this package.
RECORDED_PACKAGES = ("numpy", "numba", "torch", "transformers", "tokenizers", "matplotlib")


def made_folder(path: str | Path) -> Path:
    """`path` as a folder that exists and can be written to.

    Raises
    ------
    InputError
        a file is in the way, or the folder cannot be made or written.
    """
    target = Path(path)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError("not a folder", source=str(target)) from None
    except OSError as error:
        raise InputError(f"cannot make the folder: {error.strerror or error}", source=str(target)) from error
    return target


def json_text(data: Any) -> str:
    """`data` as JSON: sorted keys, one byte sequence for equal data."""
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with written_whole(path) as stream:
        stream.write(text)


def write_rows(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV, whole or not at all."""
    with written_whole(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def versions() -> dict[str, str]:
    """Versions of Topsieve, Python and the packages that results depend on; those not installed are left out."""
    from topsieve import __version__

    found = {"topsieve": __version__, "python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def code_digest(*packages: ModuleType) -> str:
    """Of every source file of `packages`, so that results of changed code are not taken for current ones."""
    content = hashlib.sha256()
    for package in packages:
        root = Path(package.__path__[0])
        for path in sorted(root.rglob("*")):
            if path.suffix in {".py", ".yaml", ".safetensors"}:
                content.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return content.hexdigest()[:16]
