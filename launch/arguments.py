"""What the programs share that take paths rather than a config: errors as one sentence, where data lie."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence

from privsyn_jax.types import UserError


def say(line: str) -> None:
    """Progress and messages go to stderr, results to stdout."""
    print(line, file=sys.stderr, flush=True)


def guarded(
    parser: argparse.ArgumentParser,
    program: Callable[[argparse.Namespace], int],
    arguments: Sequence[str] | None,
) -> int:
    """Runs the program. Bad input: one sentence on stderr, exit code 2, no traceback."""
    options = parser.parse_args(arguments)
    try:
        return program(options)
    except UserError as error:
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        say("interrupted: what is finished is kept")
        return 128 + signal.SIGINT


def parser_of(name: str, description: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"python -m launch.{name}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_workdir(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument("--workdir", required=required, help="folder of a finished run")
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the section data, for real records that lie elsewhere now, as in --data dir=FOLDER",
    )


def data_of(options: argparse.Namespace) -> dict[str, str]:
    """The --data options.

    Raises:
      UserError: one has no `=`.
    """
    found = {}
    for option in options.data:
        key, separator, value = option.partition("=")
        if not separator:
            raise UserError(f"--data {option} has no value: write --data KEY=VALUE, as in --data dir=FOLDER")
        found[key] = value
    return found


def names_of(text: str) -> tuple[str, ...] | None:
    """Names joined by commas; None for "all", () for "none"."""
    if text in ("all", "none"):
        return None if text == "all" else ()
    return tuple(name.strip() for name in text.split(","))
