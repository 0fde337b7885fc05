"""What every launch program shares: the config flag, and errors as one sentence."""

from __future__ import annotations

import difflib
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from launch.config import to_settings
from privsyn_jax.types import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, e.g. configs/quickstart.py", lock_config=True)


def start(main: Callable[[Any], int | None], *, load: Callable[[Any], Any] = to_settings) -> None:
    """Parses flags, loads the config, calls `main`. Bad input: one sentence on stderr, exit code 2, no traceback."""
    flags.mark_flag_as_required("config")
    logging.set_verbosity(logging.WARNING)

    def guarded(arguments: Sequence[str]) -> int | None:
        try:
            if len(arguments) > 1:
                raise UserError(f"argument {arguments[1]!r} is not understood: give settings as --config.NAME=VALUE")
            return main(_load(load))
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted: what is finished is kept; the same command goes on", file=sys.stderr)
            return 128 + signal.SIGINT

    app.run(guarded, flags_parser=_parse)


def _load(load: Callable[[Any], Any]) -> Any:
    try:
        return load(_CONFIG.value)
    except OSError:
        raise UserError("the file named by --config cannot be read: name one in configs/ or your own") from None


def _parse(arguments: Sequence[str]) -> Sequence[str]:
    """Flags of the command line; a mistake in them is one sentence on stderr and exit code 2."""
    try:
        return flags.FLAGS(arguments)
    except flags.UnrecognizedFlagError as error:
        nearest = difflib.get_close_matches(error.flagname, list(flags.FLAGS), n=1)
        message = f"unknown flag --{error.flagname}: {f'did you mean --{nearest[0]}' if nearest else 'see --help'}"
    except flags.Error as error:  # the last line says it, also where a config file raised
        message = str(error).strip().splitlines()[-1]
    except (AttributeError, KeyError) as error:  # ml_collections, of a setting that does not exist
        found = re.search(r'Did you mean "(.*)" instead of "(.*)"', str(error))
        message = f"unknown setting {found[2]!r}: did you mean {found[1]!r}?" if found else f"unknown setting {error}"
    except (TypeError, ValueError) as error:
        message = str(error)
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
