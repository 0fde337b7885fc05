"""Prepares MNIST or CIFAR-10 for tensorflow-datasets from the original files; needs no TensorFlow and no network.

python -m launch.prepare_tfds mnist --manual_dir=FOLDER_OF_ORIGINAL_FILES [--data_dir=~/tensorflow_datasets]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from privsyn_jax.data.images.tfds_builders import ORIGINALS, prepare
from privsyn_jax.types import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the folder that was prepared; returns the exit code (2: bad input)."""
    parser = argparse.ArgumentParser(
        prog="python -m launch.prepare_tfds", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=tuple(ORIGINALS))
    parser.add_argument("--manual_dir", required=True, help="folder of the original files")
    parser.add_argument("--data_dir", default="", help="where to prepare; the default is that of tensorflow-datasets")
    options = parser.parse_args(arguments)
    try:
        folder = prepare(options.name, manual_dir=options.manual_dir, data_dir=options.data_dir)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
