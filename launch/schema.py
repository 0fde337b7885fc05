"""Proposes a schema for a table: python -m launch.schema data.csv [--target COLUMN] > schema.json"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from privsyn_jax.data.propose import proposal_notes, propose_schema
from privsyn_jax.data.table import read_frame
from privsyn_jax.types import UserError

_NOTE = """\
This proposal was made by looking at the private rows of {path}:
{facts}
Each of these is marked in "declared_public" and will be repeated in the privacy report: by keeping the
proposal as it is, you declare them public. Better replace them by what you know without the rows: bounds by
the limits of the form or instrument, categories by its codebook, num_records by a rough public figure; then
remove what you replaced from "declared_public". Check the kinds, and fill in "target", "sensitive" and
"privacy_unit" (what one record stands for)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the proposal as JSON on stdout and a note on stderr; returns the exit code (2: bad input)."""
    parser = argparse.ArgumentParser(prog="python -m launch.schema", description=__doc__)
    parser.add_argument("path", help="a .csv, .csv.gz, .csv.bz2 or .parquet table")
    parser.add_argument("--target", help="the column to predict in the evaluation")
    options = parser.parse_args(arguments)
    try:
        frame = read_frame(options.path)
        proposal = propose_schema(frame, target=options.target, source=options.path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(proposal, indent=2, ensure_ascii=False))
    print(_NOTE.format(path=options.path, facts=_list_facts(proposal)), file=sys.stderr)
    for note in proposal_notes(frame, proposal):
        print(f"- {note}", file=sys.stderr)
    return 0


def _list_facts(proposal: dict) -> str:
    """One line for the table and one for each column with facts taken from its rows."""
    lines = [f"  the table: {', '.join(proposal['declared_public'])}"]
    for name, column in proposal["columns"].items():
        if column.get("declared_public"):
            lines.append(f"  {name}: {', '.join(column['declared_public'])}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
