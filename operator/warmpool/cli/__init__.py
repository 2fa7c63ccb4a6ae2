"""`warmpool`: the command line."""

import argparse
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from warmpool.cli.adopt import add_parser as add_adopt
from warmpool.cli.catalogue import add_parser as add_catalogue
from warmpool.cli.fit import add_parser as add_fit
from warmpool.cli.novasim import add_parser as add_novasim
from warmpool.cli.status import add_parser as add_status
from warmpool.main import run
from warmpool.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments and do what they say; the exit status."""
    parser = argparse.ArgumentParser(prog="warmpool", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    operator = commands.add_parser("run", help="run the operator, set by WARMPOOL_* variables")
    operator.set_defaults(run=_run)
    add_fit(commands)
    add_adopt(commands)
    add_status(commands)
    add_catalogue(commands)
    add_novasim(commands)
    args = parser.parse_args(argv)
    status: int = args.run(args)
    return status


def _run(_args: argparse.Namespace) -> int:
    try:
        settings = Settings()
    except ValidationError as error:
        for problem in error.errors(include_input=False):
            where = ".".join(str(part) for part in problem["loc"])
            print(f"WARMPOOL_{where.upper()}: {problem['msg']}", file=sys.stderr)
        return 2
    return run(settings)
