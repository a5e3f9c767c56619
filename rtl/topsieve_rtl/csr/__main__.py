"""`python -m topsieve_rtl.csr docs/registers.md topsieve_registers.h`: write the register map's page and C header."""

from __future__ import annotations

import argparse
from pathlib import Path

from topsieve_rtl.csr import ACCELERATOR_MAP, c_header, markdown
from topsieve_sim.files import written_whole


def main() -> None:
    """Write both files, whole or not at all."""
    parser = argparse.ArgumentParser(prog="python -m topsieve_rtl.csr", description=__doc__)
    parser.add_argument("page", type=Path, help="Markdown file")
    parser.add_argument("header", type=Path, help="C header")
    arguments = parser.parse_args()
    for path, text in ((arguments.page, markdown(ACCELERATOR_MAP)), (arguments.header, c_header(ACCELERATOR_MAP))):
        with written_whole(path) as stream:
            stream.write(text)


if __name__ == "__main__":
    main()
