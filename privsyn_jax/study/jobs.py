"""The runs of a study, as they are done in a process of their own."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privsyn_jax.files import write_json
from privsyn_jax.privacy.guard import PrivateFolder
from privsyn_jax.settings import DataSettings
from privsyn_jax.study.plan import run_hash
from privsyn_jax.study.results import Results
from privsyn_jax.types import AnySchema, Records, UserError
from privsyn_jax.workdir import PRIVATE_NOTICE

if TYPE_CHECKING:
    from privsyn_jax.fitted import Run

Batch = Sequence[Mapping[str, Any]]  # the settings of runs that are done together


def do(batch: Batch, folder: str) -> None:
    """Does what has no result yet, and writes the results."""
    results = Results(Path(folder))
    missing = [settings for settings in batch if results.get(settings) is None]
    if len(missing) > 1:
        from privsyn_jax.study.together import run_together

        found = run_together(missing, folder)
    else:
        found = [run(settings, folder) for settings in missing]
    for settings, result in zip(missing, found, strict=True):
        results.put(settings, result)
        results.forget(settings)


class Job:
    """A batch as a job of submitit, which pickles it and calls it elsewhere."""

    def __init__(self, batch: Batch, folder: str):
        self.batch, self.folder = [dict(settings) for settings in batch], folder

    def __call__(self) -> None:
        share_compiled_programs(self.folder)
        try:
            do(self.batch, self.folder)
        except Exception as error:
            reason = {"notice": PRIVATE_NOTICE, "error": str(error), "traceback": traceback.format_exc()}
            write_json(failure_file(self.batch, self.folder), reason)
            raise

    def checkpoint(self) -> Any:
        """What submitit puts in the queue again before time is up: the same job, which goes on where it was."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def failure_file(batch: Batch, folder: str | Path) -> Path:
    """Where a job that failed for a reason of its own says which."""
    return Path(folder) / "jobs" / f"{run_hash(batch[0])}.error.json"


def share_compiled_programs(folder: str) -> None:
    import jax

    jax.config.update("jax_compilation_cache_dir", os.path.join(folder, "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def run(settings: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """One run from records to metrics, in this process; goes on where a killed attempt was saved."""
    import jax

    from privsyn_jax.learn import learn
    from privsyn_jax.run import prepare
    from privsyn_jax.settings import settings_from_dict
    from privsyn_jax.training.attempt import open_attempt
    from privsyn_jax.training.processes import Leader
    from privsyn_jax.training_log import TrainingLog

    started = time.perf_counter()
    checked = settings_from_dict(settings)
    schema, plan = prepare(checked)
    records = read_records(checked.data, schema)
    results = Results(Path(folder))
    with alone_in(results.unfinished(settings, records.content_hash)) as private:
        with (
            open_attempt(private, checked, leader=Leader(), announce=_announce) as attempt,
            TrainingLog(private, num_steps=plan.num_steps, curve=(), first_step=attempt.step, quiet=True) as log,
        ):
            trained = learn(records.train, schema, plan, checked, attempt, hooks=[log])
        results.keep_log(settings, private / "training.jsonl")
    synthesis = trained.synthesize(
        checked.synthesis.num_samples or schema.num_records, conditions={}, key=jax.random.key(checked.seed)
    )
    return {
        **measure(settings, trained, synthesis.records, schema, records, folder),
        "seconds": round(time.perf_counter() - started, 2),
    }


def measure(
    settings: Mapping[str, Any],
    trained: Run,
    synthetic: Any,
    schema: AnySchema,
    records: Records,
    folder: str,
) -> dict[str, Any]:
    """What the result of a run says, but for the time that it took."""
    from privsyn_jax.modalities import modality_of
    from privsyn_jax.settings import settings_from_dict

    private = PrivateFolder(Path(folder))
    train, test = records.train.open_under(private), records.test.open_under(private)
    modality, checked = modality_of(schema), settings_from_dict(settings)
    rows = modality.metrics(trained, schema, train, test, synthetic, checked)
    found = named(rows)
    if checked.attacks.enabled:
        attacked = modality.attack(schema, train, test, synthetic, seed=checked.seed, names=checked.attacks.chosen)
        for sentence in attacked.skipped:
            _announce(sentence)
        for result in attacked.results:
            for name, interval in result.metrics.items():
                found[f"{result.name}_{name}"] = (interval.value, result.baseline[name])
    return {
        "settings": dict(settings),
        "epsilon": trained.privacy["epsilon"],
        "metrics": {name: value for name, (value, _) in found.items()},
        "reference": {name: reference for name, (_, reference) in found.items()},
        "path": trained.privacy["path"],
    }


def named(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """METRIC of whole tables, METRIC_COLUMN of sensitive columns -> (value, reference); other columns are left out."""
    return {
        row["metric"] if row["column"] is None else f"{row['metric']}_{row['column']}": (row["value"], row["reference"])
        for row in rows
        if row["column"] is None or row["family"] == "fairness"
    }


@functools.lru_cache(maxsize=1)
def read_records(settings: DataSettings, schema: AnySchema) -> Records:
    """The data set, read once per process."""
    from privsyn_jax.data import dataset_of

    return dataset_of(settings).load(settings, schema)


def _announce(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[Path]:
    """The folder, made and locked: two jobs must not go on with the same run."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{folder} is in use by another job: wait for it") from None
        yield folder
    finally:
        os.close(lock)
