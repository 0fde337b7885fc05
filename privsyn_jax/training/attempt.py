"""A process's attempt at a run: it goes on where the one before was killed, with the same ledger."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from privsyn_jax.differences import differences
from privsyn_jax.files import write_bytes
from privsyn_jax.models import is_own, own
from privsyn_jax.privacy.ledger import Ledger
from privsyn_jax.privacy.noise import HostNoise
from privsyn_jax.privacy.secret import Secret
from privsyn_jax.privacy.spending import Spending
from privsyn_jax.settings import Settings
from privsyn_jax.training.checkpoint import Checkpoint, Checkpoints
from privsyn_jax.training.processes import Leader
from privsyn_jax.training.program import describe_program
from privsyn_jax.training.purchases import Purchases
from privsyn_jax.training.state import TrainState
from privsyn_jax.types import UserError

TRAINING = "training"  # the ledger's name for the steps
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Attempt:
    """What a run draws from, is charged to and was left with.

    An origin names the computation as a function of the records: secret, program, and where it was taken up by another
    program. The same origin repeats the same values, at no charge; another draws anew and pays.

    Attributes:
      ledger: charged as `origin`.
      first_step: where the origin began to train.
      warnings: for the privacy report.
      leader: tells the other processes of the run, where there are some.
    """

    def __init__(
        self,
        secret: Secret,
        ledger: Ledger,
        *,
        origin: str = "",
        first_step: int = 0,
        program: Mapping[str, Any] | None = None,
        folder: Path | None = None,
        checkpoint: Checkpoint | None = None,
        checkpoints: Checkpoints | None = None,
        leader: Leader | None = None,
        seconds: float = 60.0,
        announce: Callable[[str], None] = lambda message: None,
    ):
        self.ledger, self.first_step, self.warnings = ledger, first_step, list[str]()
        self.leader = leader or Leader()
        self._secret, self._origin, self._program = secret, origin, dict(program or {})
        self._folder, self._checkpoint, self._checkpoints = folder, checkpoint, checkpoints
        self._seconds, self._announce, self._stopped_by = seconds, announce, 0

    @classmethod
    def in_memory(cls, seed: int | None) -> Attempt:
        """Nothing is kept: a killed run is lost."""
        return cls(Secret.fresh(seed), Ledger())

    @property
    def key(self) -> jax.Array:
        """Of sampling and training noise; secret."""
        return self._secret.key(self._origin)

    @property
    def noise_after(self) -> HostNoise:
        """Of what is bought after training, from its first draw on: an attempt that trains again draws the same."""
        return self._secret.host_noise_after(self._origin)

    @property
    def step(self) -> int:
        """Steps done before this attempt."""
        return self._checkpoint.step if self._checkpoint is not None else 0

    def purchases(self, buy: Callable[[HostNoise], Purchases]) -> Purchases:
        """What an attempt before has bought, or else what `buy` does."""
        if self._folder is None:
            return buy(self._secret.host_noise(self._origin))
        found = _read_purchases(self._folder)
        if found is None:
            bought = buy(self._secret.host_noise(self._origin))
            notes = {"origin": self._origin, "program": self._program, "first_step": self.first_step}
            write_bytes(_purchases_file(self._folder), bought.to_bytes(notes))
            found = _read_purchases(self._folder)
            assert found is not None
        return found[0]

    def take_up(self, state: TrainState, spending: Spending) -> TrainState:
        """The state to go on from; `state` itself at the beginning."""
        if self._checkpoint is None:
            return state
        leaves, structure = jax.tree.flatten(state)
        kept = self._checkpoint.leaves
        if [leaf.shape for leaf in leaves] != [leaf.shape for leaf in kept]:
            raise UserError(
                "the checkpoint is of another model than this version of the program makes: go on with the version "
                "that the run was begun with, or start anew in another folder"
            )
        spending.restore(self._checkpoint.notes["spending"])
        return jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in kept])

    @contextlib.contextmanager
    def keeping(self, spending: Spending) -> Iterator[Callable[..., None]]:
        """A hook that saves the state now and then, and after SIGTERM or Ctrl-C saves it and ends the process.

        Raises:
          SystemExit: on such a signal, with code 128 + its number, after saving.
        """
        if self._checkpoints is None:
            yield lambda state, logs: None
            return
        checkpoints, last = self._checkpoints, time.monotonic()

        def keep(state: TrainState, logs: Mapping[str, Any]) -> None:
            nonlocal last
            if logs and (self._stopped_by or time.monotonic() - last >= self._seconds):
                checkpoints.save(int(state.step), state, self._notes(spending))
                last = time.monotonic()
            if self._stopped_by:
                checkpoints.wait()
                name = signal.Signals(self._stopped_by).name
                self._announce(f"{name}: step {int(state.step)} is saved; the same command goes on from there")
                raise SystemExit(128 + self._stopped_by)

        with self._listening():
            yield keep
        if self._stopped_by:  # after the last dispatch
            raise SystemExit(128 + self._stopped_by)
        checkpoints.wait()

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Signals are noted and obeyed after the dispatch; a second one ends the process at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}

        def note(number: int, frame: Any) -> None:
            self._stopped_by = number
            signal.signal(number, signal.SIG_DFL)

        for number in _SIGNALS:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)

    def _notes(self, spending: Spending) -> dict[str, Any]:
        notes = {
            "origin": self._origin,
            "program": self._program,
            "first_step": self.first_step,
            "spending": spending.to_dict(),
            "ledger": self.ledger.to_list(),
        }
        return json.loads(json.dumps(notes))  # a copy, as it will be read


@contextlib.contextmanager
def open_attempt(
    private: Path,
    settings: Settings,
    *,
    leader: Leader,
    announce: Callable[[str], None],
    together: Sequence[str] = (),
) -> Iterator[Attempt]:
    """The attempt that goes on with what the folder `private` holds, or begins.

    private/ledger.json is the ledger; private/checkpoints/ holds the secret, what was bought and the states.

    Args:
      leader: tells the other processes of the run.
      announce: told in words what is going on with.
      together: names of the runs that are trained in one program with this one; then no states are saved.

    Raises:
      UserError: the ledger is damaged or lags behind, or the run cannot go on as another program.
    """
    folder = private / "checkpoints"
    folder.mkdir(mode=0o700, exist_ok=True)
    secret = _read_secret(folder, settings.privacy.noise_seed)
    program = {**describe_program(settings.training), "together": list(together), **_own_code(settings.model["name"])}
    checkpoints = Checkpoints(folder / "states")
    try:
        checkpoint = checkpoints.newest(announce)
        known = checkpoint.notes if checkpoint is not None else _purchase_notes(folder)
        ledger = _read_ledger(private / "ledger.json", known)
        step = checkpoint.step if checkpoint is not None else 0
        origin, first_step, warnings = _origin(secret, program, known, step, ledger)
        _refuse_forks(checkpoint, origin, ledger, settings)
        for warning in warnings:
            announce(warning)
        if step:
            announce(f"going on from step {step}, where the last attempt was saved")
        attempt = Attempt(
            secret,
            ledger.charged_by(origin),
            origin=origin,
            first_step=first_step,
            program=program,
            folder=folder,
            checkpoint=checkpoint,
            checkpoints=None if together else checkpoints,
            leader=leader,
            seconds=settings.training.checkpoint_seconds,
            announce=announce,
        )
        attempt.warnings += _warned_before(folder, warnings)
        yield attempt
    finally:
        checkpoints.close()


def _own_code(name: str) -> dict[str, str]:
    """What the bits of a run depend on besides this package, where its generator is the user's."""
    return {"generator": own.source_digest(name)} if is_own(name) else {}


def _origin(
    secret: Secret, program: Mapping[str, Any], known: Mapping[str, Any] | None, step: int, ledger: Ledger
) -> tuple[str, int, list[str]]:
    """(origin, its first step, warnings) of this attempt, which goes on from `step`."""
    if known is None:
        origin = _digest(secret.fingerprint, program)
        again = bool(ledger.entries) and not ledger.has_paid(origin)
        lost = "what was bought before was lost, or is of another program: it is bought again, and charged again"
        return origin, 0, [lost] if again else []
    if known["program"] == program:
        return known["origin"], known["first_step"], []
    origin = _digest(known["origin"], {"program": program, "step": step})
    repeated = ledger.paid(TRAINING, known["origin"]) - step
    if repeated <= 0 or ledger.has_paid(origin):
        return origin, step, []
    changed = "; ".join(differences(known["program"], program))
    warning = (
        f"{repeated} steps after step {step} are repeated by another program, with other noise, and charged again: "
        f"epsilon will exceed the plan ({changed})"
    )
    return origin, step, [warning]


def _refuse_forks(checkpoint: Checkpoint | None, origin: str, ledger: Ledger, settings: Settings) -> None:
    """Raises UserError where steps were run, or would be, on two branches that share a budget or noise.

    An adaptive run has one filter for the branch that it was charged for. Correlated noise goes on from secret earlier
    noise, and no record may be drawn in steps that are close to each other, which other keys would not see to.
    """
    if checkpoint is None and not ledger.paid(TRAINING, origin):
        return  # a branch of its own, from the first step, which pays for all of it
    step = checkpoint.step if checkpoint is not None else 0
    if settings.privacy.adaptive.rule and ledger.paid_by_others(TRAINING, origin) > step:
        what = f"steps after step {step} were run by another program, and adaptive noise allows one path only"
    elif settings.privacy.num_bands > 1 and checkpoint is not None and checkpoint.notes["origin"] != origin:
        what = "it was begun by another program, and correlated noise must be drawn by one"
    else:
        return
    raise UserError(f"this run cannot go on ({what}): go on where it was begun, or start anew in another folder")


def _digest(before: str, what: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{before} {json.dumps(what, sort_keys=True)}".encode()).hexdigest()[:24]


def _read_ledger(path: Path, known: Mapping[str, Any] | None) -> Ledger:
    """The ledger on disk; refuses one that says less than what the run already knows was charged."""
    restore = "restore the file, or start anew in another folder"
    if not path.is_file():
        if known is not None:
            raise UserError(f"{path} is missing, so what this run has spent is not known: {restore}")
        return Ledger(path=path)
    try:
        ledger = Ledger.read(path)
    except (ValueError, OSError) as error:
        raise UserError(f"{error}: until then this run cannot go on; or start anew in another folder") from None
    if known is not None and not ledger.covers(Ledger.from_list(known.get("ledger", []))):
        raise UserError(f"{path} books less than was charged when the last checkpoint was saved: {restore}")
    return ledger


def _read_secret(folder: Path, seed: int | None) -> Secret:
    """The run's secret, made and put on disk at the first attempt, before anything is drawn from it."""
    path = folder / "secret.json"
    if seed is not None:
        return Secret(b"", seed)
    if not path.is_file():
        write_bytes(path, json.dumps({"entropy": Secret.fresh().entropy.hex()}).encode())
    try:
        return Secret(bytes.fromhex(json.loads(path.read_text())["entropy"]))
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{path} is damaged: remove it, and what was drawn from it is drawn again and charged"
        ) from None


def _purchases_file(folder: Path) -> Path:
    return folder / "purchases.npz"


def _read_purchases(folder: Path) -> tuple[Purchases, dict[str, Any]] | None:
    path = _purchases_file(folder)
    if not path.is_file():
        return None
    try:
        return Purchases.from_bytes(path.read_bytes())
    except (KeyError, TypeError, ValueError, OSError, zipfile.BadZipFile):
        raise UserError(
            f"{path} is damaged: remove it together with the folder states/, and the run begins anew on the same ledger"
        ) from None


def _purchase_notes(folder: Path) -> dict[str, Any] | None:
    found = _read_purchases(folder)
    return found[1] if found is not None else None


def _warned_before(folder: Path, warnings: list[str]) -> list[str]:
    """All warnings of this run's attempts, these included; kept for the report."""
    path = folder / "warnings.json"
    known = json.loads(path.read_text()) if path.is_file() else []
    if warnings:
        known = [*known, *warnings]
        write_bytes(path, json.dumps(known).encode())
    return known
