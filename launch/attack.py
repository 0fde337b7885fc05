"""Attacks the synthetic records of a finished run: python -m launch.attack --workdir=runs/quickstart [--shadows=64]

Results hold facts about real records and are written under private/attacks; the page is written anew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from launch.arguments import add_workdir, data_of, guarded, names_of, parser_of, say


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a verdict for each attack; returns the exit code (2: bad input)."""
    parser = parser_of("attack", __doc__)
    add_workdir(parser, required=True)
    parser.add_argument("--attacks", default="all", help="names joined by commas, all, or none")
    parser.add_argument(
        "--shadows", type=int, default=0, help="generators trained for a membership attack on the mechanism"
    )
    parser.add_argument("--shadow-records", type=int, default=2000, help="records that each of them is trained on")
    return guarded(parser, _attack, arguments)


def _attack(options: argparse.Namespace) -> int:
    from privsyn_jax.evidence import attack_run, open_finished, shadow_attack_run

    names, lines = names_of(options.attacks), []
    with open_finished(options.workdir, data_of(options)) as finished:
        if names != ():
            lines += attack_run(finished, names, say)
        if options.shadows:
            lines += shadow_attack_run(finished, options.shadows, options.shadow_records, say)
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
