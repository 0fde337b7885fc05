"""Lower bounds on epsilon from attacks on the mechanism of a run: python -m launch.audit --workdir=runs/quickstart

Exit code 3 if a bound lies above what the run claims. No private record is read: canaries stand in for them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from launch.arguments import add_workdir, guarded, parser_of, say

VIOLATED = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what each audit found beside the claim; returns the exit code (2: bad input, 3: claim refuted)."""
    parser = parser_of("audit", __doc__)
    add_workdir(parser, required=True)
    parser.add_argument("--canaries", type=int, default=1000, help="records of which half is trained on")
    return guarded(parser, _audit, arguments)


def _audit(options: argparse.Namespace) -> int:
    from privsyn_jax.evidence import audit_run

    results = audit_run(options.workdir, options.canaries, say)
    print("\n".join(result.sentence for result in results))
    return VIOLATED if any(result.is_violated for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
