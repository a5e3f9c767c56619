"""The command `topsieve`: one file a subcommand in `commands`, loaded when it is asked for."""

from topsieve.cli.main import main

__all__ = ["main"]
