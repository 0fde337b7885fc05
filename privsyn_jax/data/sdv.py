"""SDV metadata of one table, rewritten as a schema object.

SDV metadata states kinds but neither bounds nor a number of records. The schema's own keys ("lower", "upper",
"categories", "num_records", "target", ...) may be added to the same file and are kept.

Source: https://docs.sdv.dev/sdv/concepts/metadata/metadata-json
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from privsyn_jax.types import UserError

_KINDS = {"numerical": "numeric", "categorical": "categorical", "boolean": "boolean", "datetime": "datetime"}
_TABLE_KEYS_DROPPED = (
    "METADATA_SPEC_VERSION",
    "primary_key",
    "alternate_keys",
    "sequence_key",
    "sequence_index",
    "column_relationships",
    "relationships",
    "tables",
)
_COLUMN_KEYS_DROPPED = ("sdtype", "pii", "regex_format", "computer_representation", "order", "order_by")


def is_sdv(content: Mapping[str, Any]) -> bool:
    """Whether a parsed JSON object is SDV metadata."""
    if "METADATA_SPEC_VERSION" in content or "tables" in content:
        return True
    columns = content.get("columns")
    return isinstance(columns, Mapping) and any(isinstance(c, Mapping) and "sdtype" in c for c in columns.values())


def convert(content: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A schema object (not yet checked) from SDV metadata (versions V1, SINGLE_TABLE_V1, MULTI_TABLE_V1).

    `numerical` becomes integer or numeric by its computer_representation; `id` and every sdtype of personal
    data (email, phone_number, ...) become id, which is regenerated and never learned.

    Raises:
      UserError: the metadata holds no table or several.
    """
    table = content
    if "tables" in content:
        tables = content["tables"]
        one_table = isinstance(tables, Mapping) and [type(held) for held in tables.values()] == [dict]
        if not one_table:
            raise UserError(f"SDV metadata {source} must hold exactly one table: keep the one you want under 'tables'")
        table = {**content, **next(iter(tables.values()))}
    schema = {key: value for key, value in table.items() if key not in _TABLE_KEYS_DROPPED}
    columns = table.get("columns")
    if isinstance(columns, Mapping):
        schema["columns"] = {name: _convert_column(column) for name, column in columns.items()}
    return schema


def _convert_column(column: Any) -> Any:
    if not isinstance(column, Mapping) or "sdtype" not in column:
        return column
    kept = {key: value for key, value in column.items() if key not in _COLUMN_KEYS_DROPPED}
    kind = _KINDS.get(column["sdtype"], "id")
    if kind == "numeric" and "int" in str(column.get("computer_representation", "")).lower():
        kind = "integer"
    if kind == "categorical" and isinstance(column.get("order"), list):
        kept = {"categories": column["order"], **kept}
        kind = "ordinal"
    return {"kind": kind, **kept}
