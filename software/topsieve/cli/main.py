"""Finds the subcommand, runs it, and turns whatever goes wrong into one line and an exit code.

Exit codes: 0 done, 1 the answer is no (a check that did not hold) or a defect of Topsieve, 2 bad input, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from topsieve import __version__
from topsieve.cli import commands
from topsieve_sim.errors import InputError

EXIT_DEFECT = 1
EXIT_INPUT = 2
EXIT_INTERRUPTED = 130
DEBUG_VARIABLE = "TOPSIEVE_DEBUG"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see: {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return the exit code."""
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as interrupt:
        kept = f"; {interrupt}" if str(interrupt) else ""
        return _failed(f"interrupted{kept}", EXIT_INTERRUPTED)
    except InputError as error:
        return _failed(str(error), EXIT_INPUT)
    except BrokenPipeError:
        # The reader of a pipe went away (`topsieve methods | head`): nothing to say and nobody to say it to.
        _discard_stdout()
        return 0
    except MemoryError:
        return _failed("out of memory: use a shorter text, fewer methods or a smaller model", EXIT_INPUT)
    except OSError as error:
        _discard_stdout()
        where = f"{error.filename}: " if error.filename else ""
        return _failed(f"{where}{error.strerror or error}", EXIT_INPUT)
    except ModuleNotFoundError as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        return _failed(f"the package {error.name} is not installed; topsieve doctor says how to get it", EXIT_INPUT)
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        what = " ".join(f"{type(error).__name__}: {error}".split())
        return _failed(f"internal error: {what} (set {DEBUG_VARIABLE}=1 for the traceback)", EXIT_DEFECT)


def command_names() -> tuple[str, ...]:
    """Names of the subcommands, sorted: the modules of `topsieve.cli.commands`."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(commands.__path__)))


def _run(argv: list[str]) -> int:
    parser = Parser(
        prog="topsieve",
        description="Token pruning and merging on attention hardware: what a method costs and what it keeps.",
    )
    parser.add_argument("--version", action="version", version=f"topsieve {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    names = command_names()
    # Only the command that runs is loaded; the list of all is loaded to be shown.
    chosen = next((argument for argument in argv if not argument.startswith("-")), None)
    modules: dict[str, ModuleType] = {}
    for name in names:
        if chosen in names and name != chosen:
            continue
        module = importlib.import_module(f"{commands.__name__}.{name}")
        subparser = subparsers.add_parser(
            name, help=module.HELP, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(subparser)
        modules[name] = module
    arguments = parser.parse_args(argv)
    return int(modules[arguments.command].run(arguments))


def _failed(line: str, code: int) -> int:
    print(f"topsieve: {' '.join(line.split())}", file=sys.stderr)
    return code


def _discard_stdout() -> None:
    # Python flushes stdout once more on exit and would report the same failure a second time.
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
