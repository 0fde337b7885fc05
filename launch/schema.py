"""Proposes a schema for a table, for images or for texts.

python -m launch.schema data.csv [--target COLUMN] [--unit COLUMN] > schema.json
python -m launch.schema FOLDER_OR_NPZ > schema.json
python -m launch.schema reviews.csv --text COLUMN [--label COLUMN] > schema.json
python -m launch.schema JSONL_OR_FOLDER_OR_TAR > schema.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from privsyn_jax.data.images.propose import image_proposal_notes, propose_image_schema, survey
from privsyn_jax.data.propose import proposal_notes, propose_schema
from privsyn_jax.data.table import read_frame
from privsyn_jax.data.texts import propose as texts
from privsyn_jax.types import UserError

_NOTE = """\
This proposal was made by looking at the private {records} of {path}:
{facts}
Each of these is marked in "declared_public" and will be repeated in the privacy report: by keeping the
proposal as it is, you declare them public. Better replace them by what you know without the {records}: {known};
then remove what you replaced from "declared_public". {check}"""
_TABLE = {
    "records": "rows",
    "known": """bounds by
the limits of the form or instrument, categories by its codebook, num_records by a rough public figure""",
    "check": """Check the kinds, and fill in "target", "sensitive" and
"privacy_unit" (what one record stands for). If somebody may have several rows, say with --unit which column tells whose
a row is.""",
}
_IMAGES = {
    "records": "images",
    "known": """the
shape by the camera or scanner, the classes by their codebook, num_records by a rough public figure""",
    "check": """Check the shape, and fill in
"privacy_unit" (what one image stands for).""",
}
_TEXTS = {
    "records": "texts",
    "known": """the
classes by their codebook, num_records by a rough public figure""",
    "check": """Check the classes, and fill in "unit" (the column
that says whom a text belongs to, if somebody may have several) and "privacy_unit" (what one text stands for).""",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the proposal as JSON on stdout and a note on stderr; returns the exit code (2: bad input)."""
    parser = argparse.ArgumentParser(
        prog="python -m launch.schema", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "path",
        help="a .csv, .csv.gz, .csv.bz2 or .parquet table; an .npz, or a folder of CLASS/NAME.png; a .csv or .jsonl, "
        "compressed or not, or a folder or .tar[.gz] of CLASS/NAME.txt",
    )
    parser.add_argument("--target", help="the column of a table to predict in the evaluation")
    parser.add_argument("--unit", help="the column of a table that says whose a row is: a person with several rows")
    parser.add_argument("--text", help="the column that holds texts: a .csv is then a set of texts")
    parser.add_argument("--label", help="the column that holds the class of a text")
    options = parser.parse_args(arguments)
    try:
        if options.text is not None or texts.holds_texts(options.path):
            (proposal, facts, notes), words = _propose_for_texts(options), _TEXTS
        elif options.label is not None:
            raise UserError(f"--label {options.label!r} is for texts: give --text as well, or --target for a table")
        elif os.path.isdir(options.path) or options.path.endswith(".npz"):
            (proposal, facts, notes), words = _propose_for_images(options.path, options.target), _IMAGES
        else:
            (proposal, facts, notes), words = _propose_for_table(options.path, options.target, options.unit), _TABLE
        if options.unit is not None and words is not _TABLE:
            raise UserError(f"--unit {options.unit!r} is for tables: leave it out, and fill in the schema's own unit")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(proposal, indent=2, ensure_ascii=False))
    note = _NOTE.format(path=options.path, facts=facts, **words)
    print("\n".join([note, *(f"- {line}" for line in notes)]), file=sys.stderr)
    return 0


def _propose_for_table(path: str, target: str | None, unit: str | None) -> tuple[dict, str, list[str]]:
    """(proposal, lines on the facts taken from the rows, what to look at)."""
    frame = read_frame(path)
    proposal = propose_schema(frame, target=target, unit=unit, source=path)
    return proposal, _list_facts(proposal), proposal_notes(frame, proposal)


def _propose_for_images(path: str, target: str | None) -> tuple[dict, str, list[str]]:
    """(proposal, line on the facts taken from the images, what to look at)."""
    if target is not None:
        raise UserError(f"--target {target!r} names a column, and {path} holds images: leave it out")
    seen = survey(path)
    proposal = propose_image_schema(seen, source=path)
    return proposal, f"  {', '.join(proposal['declared_public'])}", image_proposal_notes(seen, proposal)


def _propose_for_texts(options: argparse.Namespace) -> tuple[dict, str, list[str]]:
    """(proposal, line on the facts taken from the texts, what to look at)."""
    if options.target is not None:
        raise UserError(f"--target {options.target!r} is for tables, and {options.path} holds texts: give --label")
    seen = texts.survey(options.path, text=options.text, label=options.label)
    proposal = texts.propose_text_schema(seen, source=options.path)
    return proposal, f"  {', '.join(proposal['declared_public'])}", texts.text_proposal_notes(seen, proposal)


def _list_facts(proposal: dict) -> str:
    """One line for the table and one for each column with facts taken from its rows."""
    lines = [f"  the table: {', '.join(proposal['declared_public'])}"]
    for name, column in proposal["columns"].items():
        if column.get("declared_public"):
            lines.append(f"  {name}: {', '.join(column['declared_public'])}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
