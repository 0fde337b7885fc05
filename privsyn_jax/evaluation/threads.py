"""Host work on several cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_MAX_THREADS = 4  # each holds the arrays of its item


def in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """[work(item) for item in items] on a few threads; gains where NumPy does the work, as it then frees the others.

    Args:
      work: called once per item; independent of the order of the calls.
      items: what to work on.

    Returns:
      Results in the order of the items.
    """
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as threads:
        return list(threads.map(work, items))
