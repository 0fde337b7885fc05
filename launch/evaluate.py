"""How useful synthetic records are, and what attacks find: of a finished run, or of records made by anyone.

python -m launch.evaluate --workdir=runs/quickstart
python -m launch.evaluate --real-train train.csv --real-test test.csv --synthetic synthetic.csv --schema schema.json \
    --out evaluation

Tables are .csv[.gz|.bz2] or .parquet; images an .npz or a folder of CLASS/NAME.png; texts a .csv, .jsonl, folder or
.tar of CLASS/NAME.txt. Which of them is said by the schema, see launch.schema. Results hold statistics of real records
and are written under private/.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from launch.arguments import add_workdir, data_of, guarded, names_of, parser_of, say
from privsyn_jax.types import UserError

_FILES = ("real_train", "real_test", "synthetic", "schema")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints headline metrics and verdicts; returns the exit code (2: bad input)."""
    parser = parser_of("evaluate", __doc__)
    add_workdir(parser, required=False)
    parser.add_argument("--real-train", help="real records that the synthetic ones were made from")
    parser.add_argument("--real-test", help="real records that were held out")
    parser.add_argument("--synthetic", help="synthetic records, made by anyone")
    parser.add_argument("--schema", help="what is public about them, JSON, see launch.schema")
    parser.add_argument("--out", help="folder for the results")
    parser.add_argument("--attacks", default="all", help="names joined by commas, all, or none")
    parser.add_argument("--seed", type=int, default=0, help="of downstream models and subsets")
    return guarded(parser, _evaluate, arguments)


def _evaluate(options: argparse.Namespace) -> int:
    given = [name for name in (*_FILES, "out") if getattr(options, name) is not None]
    if options.workdir is not None:
        if given:
            raise UserError(
                f"--{_flag(given[0])} is for files of any origin, --workdir for a run: give one or the other"
            )
        return _evaluate_run(options)
    absent = [name for name in (*_FILES, "out") if name not in given]
    if absent:
        raise UserError(f"--{_flag(absent[0])} is missing: give it, or --workdir of a finished run")
    return _evaluate_files(options)


def _evaluate_run(options: argparse.Namespace) -> int:
    from privsyn_jax.evidence import attack_run, evaluate_run, open_finished
    from privsyn_jax.run import summary

    names, lines = names_of(options.attacks), []
    with open_finished(options.workdir, data_of(options)) as finished:
        evaluate_run(finished, say)
        if names != ():
            lines = attack_run(finished, names, say)
        print("\n".join([*summary(finished.workdir, finished.modality), *lines]))
    return 0


def _evaluate_files(options: argparse.Namespace) -> int:
    from privsyn_jax.evaluation import headline
    from privsyn_jax.evidence import Files, evaluate_files
    from privsyn_jax.report.summary import metric_lines
    from privsyn_jax.settings import Settings

    files = Files(**{name: getattr(options, name) for name in _FILES})
    page, metrics, lines = evaluate_files(
        files, options.out, Settings(seed=options.seed), attacks=names_of(options.attacks), announce=say
    )
    print("\n".join([f"page (private)  {page}", *metric_lines(headline(metrics)), *lines]))
    return 0


def _flag(name: str) -> str:
    return name.replace("_", "-")


if __name__ == "__main__":
    sys.exit(main())
