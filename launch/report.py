"""Writes the page of a finished run anew, with what attacks and audits have found since: --workdir=runs/quickstart"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from launch.arguments import add_workdir, data_of, guarded, parser_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints where the page is; returns the exit code (2: bad input)."""
    parser = parser_of("report", __doc__)
    add_workdir(parser, required=True)
    return guarded(parser, _report, arguments)


def _report(options: argparse.Namespace) -> int:
    from privsyn_jax.evidence import open_finished, report_run

    with open_finished(options.workdir, data_of(options)) as finished:
        print(f"page (private)  {report_run(finished)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
