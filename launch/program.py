"""What every launch program shares: the config flag, and errors as one sentence."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence

from absl import app, flags, logging
from ml_collections import config_flags

from launch.config import to_settings
from privsyn_jax.settings import Settings, refuse_unknown
from privsyn_jax.types import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, e.g. configs/quickstart.py", lock_config=True)


def start(main: Callable[[Settings], int | None]) -> None:
    """Parses flags, checks settings, calls `main`. Bad input: one sentence on stderr, exit code 2, no traceback."""
    flags.mark_flag_as_required("config")
    logging.set_verbosity(logging.WARNING)

    def guarded(arguments: Sequence[str]) -> int | None:
        try:
            if len(arguments) > 1:
                raise UserError(f"argument {arguments[1]!r} is not understood: settings are given as --config.NAME=VALUE")
            return main(to_settings(_CONFIG.value))
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2

    app.run(guarded, flags_parser=_parse)


def _parse(arguments: Sequence[str]) -> Sequence[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return flags.FLAGS(arguments)
    except flags.UnrecognizedFlagError as error:
        message = f"unknown flag --{error.flagname}"
    except flags.Error as error:
        message = str(error)
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:  # from ml_collections and config files
        message = str(error).strip("'\"")
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
