"""The subcommands. A module here is a subcommand of its own name and defines:

`HELP` : one line for the list of subcommands; the module's docstring is the longer description.
`add_arguments(parser)` : declares the arguments on an `argparse.ArgumentParser`.
`run(arguments) -> int` : does the work and returns the exit code.

At import time a module may load the standard library only, so that `topsieve --help` answers at once.
"""
