"""Equal outcomes over groups of a synthetic table, after the fact: of a finished run, or of a table made by anyone.

python -m launch.mitigate --workdir=runs/quickstart --sensitive=health --out mitigated.csv
python -m launch.mitigate --synthetic synthetic.csv --schema schema.json --sensitive=sex --sensitive=race \
    --outcome=income --method=weights --out weighted.csv

Afterwards every group has the same share of each outcome. This is post-processing: it reads synthetic records and
public facts only and costs no privacy. What it costs in utility is measured by --cost, on the run's real records; the
result stays under private/.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from launch.arguments import add_workdir, data_of, guarded, parser_of, say
from privsyn_jax.types import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the table and its report; returns the exit code (2: bad input)."""
    parser = parser_of("mitigate", __doc__)
    add_workdir(parser, required=False)
    parser.add_argument("--synthetic", help="a table made by anyone, instead of --workdir")
    parser.add_argument("--schema", help="what is public about it, JSON, see launch.schema")
    parser.add_argument(
        "--sensitive",
        action="append",
        default=[],
        metavar="COLUMN",
        help="whose values are the groups; several for their combinations (default: the schema's sensitive columns)",
    )
    parser.add_argument("--outcome", help="the column whose shares are made equal (default: the schema's target)")
    parser.add_argument(
        "--method",
        choices=("resample", "weights"),
        default="resample",
        help="drop surplus records and draw missing ones (of a file: repeat them), or add a column of weights",
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is dropped, drawn and repeated")
    parser.add_argument(
        "--out", required=True, help="the new table, .csv[.gz|.bz2]; its report goes beside it as .json"
    )
    parser.add_argument("--cost", action="store_true", help="also evaluate before and after on the run's real records")
    return guarded(parser, _mitigate, arguments)


def _mitigate(options: argparse.Namespace) -> int:
    from privsyn_jax.mitigate import check_out, cost_for_run, mitigated, table_of_file, table_of_run, write_mitigated

    _check(options)
    check_out(options.out)  # before anything is computed
    is_run = options.workdir is not None
    table = table_of_run(options.workdir) if is_run else table_of_file(options.synthetic, options.schema)
    found = mitigated(
        table, sensitive=options.sensitive, outcome=options.outcome, method=options.method, seed=options.seed
    )
    for note in table.notes:
        say(note)
    cost = cost_for_run(options.workdir, data_of(options), found, say) if options.cost else []
    written, report = write_mitigated(found, options.out)
    print("\n".join([f"table   {written}", f"report  {report}", *_lines(found.report), *_cost_lines(cost)]))
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuses flags that do not go together."""
    if options.workdir is not None and (options.synthetic is not None or options.schema is not None):
        raise UserError(
            "--synthetic and --schema are for a table of any origin, --workdir for a run: give one or the other"
        )
    if options.workdir is None and (options.synthetic is None or options.schema is None):
        absent = "schema" if options.synthetic is not None else "synthetic"
        raise UserError(f"--{absent} is missing: give it, or --workdir of a finished run")
    if options.cost and options.workdir is None:
        raise UserError(
            "--cost needs --workdir, which knows the real records: for a file, evaluate both tables by launch.evaluate"
        )
    if options.cost and options.method == "weights":
        raise UserError("--cost evaluates a table, and --method=weights leaves it as it is: use --method=resample")


def _lines(report: Mapping[str, Any]) -> list[str]:
    """What was done, in a few lines."""
    lines, claim = [], report["privacy"]
    if claim is not None and not claim["private"]:
        lines.append("NOT PRIVATE: the table that this was made from is not.")
    gaps = [_widest_gap(report[when]["rates"]) for when in ("before", "after")]
    lines.append(
        f"widest gap in the shares of {report['outcome']} over {', '.join(report['sensitive'])}: "
        f"{gaps[0]:.4f} before, {gaps[1]:.4f} after"
    )
    if report["method"] == "weights":
        lines.append(f"as precise as {report['effective_rows']:,.0f} records without weights")
    else:
        counts = (f"{report[f'rows_{what}']:,} {what}" for what in ("dropped", "drawn", "repeated"))
        lines.append(f"records: {', '.join(counts)}")
    if report["left_out"]:
        lines.append(f"left as they are, without a record of some outcome: {'; '.join(report['left_out'])}")
    return [*lines, *report["notes"]]


def _widest_gap(rates: Sequence[Sequence[float] | None]) -> float:
    of_outcomes = zip(*(shares for shares in rates if shares is not None), strict=True)
    return max(max(shares) - min(shares) for shares in of_outcomes)


def _cost_lines(cost: Sequence[Mapping[str, Any]]) -> list[str]:
    """Utility and fairness before and after."""
    return [
        f"{row['metric'].replace('_', ' ')}{'' if row['column'] is None else ' of ' + row['column']}: "
        f"{row['before']:.4f} before, {row['after']:.4f} after, {row['reference']:.4f} on real records"
        for row in cost
        if row["family"] == "fairness" or row["metric"].endswith(("_auc", "_r2"))
    ]


if __name__ == "__main__":
    sys.exit(main())
