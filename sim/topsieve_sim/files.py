"""Files are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from topsieve_sim.errors import InputError


@contextmanager
def written_whole(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` that replaces it on a clean exit and vanishes on any other.

    Raises
    ------
    InputError
        the folder is missing or not writable, or the disk is full.
    """
    target = Path(path)
    encoding = None if "b" in mode else "utf-8"
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(descriptor, mode, encoding=encoding) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes the file private; give it the mode an ordinary open() would have given.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror or error}", source=str(target)) from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
