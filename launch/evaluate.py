"""How useful synthetic records are, and what attacks find: of a finished run, or of records made by anyone.

python -m launch.evaluate --workdir=runs/quickstart
python -m launch.evaluate --real-train train.csv --real-test test.csv --synthetic synthetic.csv --schema schema.json \
    --out evaluation

--baseline compares with an earlier evaluation on the same real records, by paired tests over seeds: another run's
workdir, or another --out.

Tables are .csv[.gz|.bz2] or .parquet; images an .npz or a folder of CLASS/NAME.png; texts a .csv, .jsonl, folder or
.tar of CLASS/NAME.txt. Which of them is said by the schema, see launch.schema. Results hold statistics of real records
and are written under private/.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from launch.arguments import add_workdir, data_of, guarded, names_of, parser_of, say
from privsyn_jax.types import UserError

if TYPE_CHECKING:
    from privsyn_jax.comparison import Baseline
    from privsyn_jax.settings import Settings

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
    parser.add_argument("--seed", type=int, default=0, help="of downstream models and subsets, for files")
    parser.add_argument(
        "--num-seeds",
        type=int,
        help="resamples that downstream models are trained on besides, for intervals and tests (default: as the run "
        "has it; of files 5 for tables, 0 for images and texts)",
    )
    parser.add_argument(
        "--constraints", help="rules that every row of a table should keep, JSON, as synthesis.constraints; for files"
    )
    parser.add_argument("--baseline", help="folder of an earlier evaluation to compare with: a --workdir or an --out")
    parser.add_argument("--baseline-name", help="what to call it (default: the folder's name)")
    return guarded(parser, _evaluate, arguments)


def _evaluate(options: argparse.Namespace) -> int:
    if options.baseline_name is not None and options.baseline is None:
        raise UserError("--baseline-name is given without --baseline: give the folder of the evaluation too")
    given = [name for name in (*_FILES, "out", "constraints") if getattr(options, name) is not None]
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

    names, baseline = names_of(options.attacks), _baseline(options)
    with open_finished(options.workdir, data_of(options)) as finished:
        finished = finished._replace(settings=_with_seeds(finished.settings, options.num_seeds))
        lines = evaluate_run(finished, say, baseline=baseline)
        if names != ():
            lines += attack_run(finished, names, say)
        print("\n".join([*summary(finished.workdir, finished.modality), *lines]))
    return 0


def _evaluate_files(options: argparse.Namespace) -> int:
    from privsyn_jax.evaluation import headline
    from privsyn_jax.evidence import Files, evaluate_files
    from privsyn_jax.report.summary import metric_lines
    from privsyn_jax.settings import Settings, SynthesisSettings

    files = Files(**{name: getattr(options, name) for name in _FILES})
    synthesis = SynthesisSettings(constraints=options.constraints or "")
    settings = _with_seeds(Settings(seed=options.seed, synthesis=synthesis), options.num_seeds)
    names, baseline = names_of(options.attacks), _baseline(options)
    page, metrics, lines = evaluate_files(files, options.out, settings, attacks=names, announce=say, baseline=baseline)
    print("\n".join([f"page (private)  {page}", *metric_lines(headline(metrics)), *lines]))
    return 0


def _baseline(options: argparse.Namespace) -> Baseline | None:
    from privsyn_jax.comparison import read_baseline

    return None if options.baseline is None else read_baseline(options.baseline, options.baseline_name)


def _with_seeds(settings: Settings, num_seeds: int | None) -> Settings:
    """The settings with so many seeds of downstream models, whatever the records are."""
    if num_seeds is None:
        return settings
    evaluation = dataclasses.replace(settings.evaluation, num_seeds=num_seeds, net_seeds=num_seeds)
    return dataclasses.replace(settings, evaluation=evaluation)


def _flag(name: str) -> str:
    return name.replace("_", "-")


if __name__ == "__main__":
    sys.exit(main())
