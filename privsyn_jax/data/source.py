"""Is a published data set the one that its public schema describes? Row count and hash say so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from privsyn_jax.types import UserError


class Published(NamedTuple):
    """What is known about a published table: number of rows, and `hash_rows` of them."""

    num_rows: int
    sha256: str


def hash_rows(rows: Iterable[Sequence[str]]) -> str:
    """sha256 of parsed rows, so that line ends and blank lines do not matter."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(("\x1f".join(row) + "\x1e").encode())
    return digest.hexdigest()


def check_published(rows: Sequence[Sequence[str]], published: Published, *, source: str, remedy: str) -> None:
    """Raises UserError, ending in `remedy`, when `rows` are not the published ones."""
    if len(rows) != published.num_rows:
        raise UserError(f"{source} has {len(rows)} rows instead of the published {published.num_rows}: {remedy}")
    if hash_rows(rows) != published.sha256:
        raise UserError(f"{source} has the published number of rows, but other content: {remedy}")
