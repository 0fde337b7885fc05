"""The privacy report as a document that can be handed to whoever has to approve a release."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from privsyn_jax.report import guarantee
from privsyn_jax.report.numbers import (
    finite_or_none,
    format_epsilon,
    format_number,
    format_setting,
    format_share,
)
from privsyn_jax.report.path import PATH_HEADER, path_changes, path_rows

LEDGER_HEADER = ("what was read", "for", "mechanism", "noise", "times", "epsilon alone", "share of budget")

RECOMPUTE_CODE = """\
import json
import pathlib
from dp_accounting.pld import common, privacy_loss_distribution as pld

GRID = 1e-4

def loss_distribution(event):
    kind, grid = event["kind"], {"value_discretization_interval": GRID}
    noise, sensitivity = event.get("noise_multiplier"), event.get("sensitivity")
    if kind in ("gaussian", "poisson_gaussian"):
        return pld.from_gaussian_mechanism(noise, sampling_prob=event.get("sampling_rate", 1.0), **grid)
    if kind == "laplace":
        return pld.from_laplace_mechanism(noise, **grid)
    if kind == "discrete_gaussian":
        return pld.from_discrete_gaussian_mechanism(
            noise * sensitivity, sensitivity=sensitivity, use_connect_dots=True, **grid)
    if kind == "discrete_laplace":
        return pld.from_discrete_laplace_mechanism(
            1 / (noise * sensitivity), sensitivity=sensitivity, use_connect_dots=True, **grid)
    if kind in ("exponential", "pure", "approximate"):
        parameters = common.DifferentialPrivacyParameters(event["epsilon"], event.get("delta", 0.0))
        return pld.from_privacy_parameters(parameters, **grid)
    raise ValueError(kind)

report = json.loads(pathlib.Path("privacy_report.json").read_text())
total = pld.identity(value_discretization_interval=GRID)
for entry in report["ledger"]:
    event = entry["event"]
    total = total.compose(loss_distribution(event).self_compose(event.get("count", 1)))
print(total.get_epsilon_for_delta(report["delta"]))
"""

RECOMPUTE_RENYI_CODE = """\
import json
import math
import pathlib
import dp_accounting as dp
from dp_accounting import rdp

def one(event):
    kind, noise = event["kind"], event.get("noise_multiplier")
    if kind == "poisson_gaussian":
        return dp.PoissonSampledDpEvent(event["sampling_rate"], dp.GaussianDpEvent(noise))
    if kind in ("gaussian", "discrete_gaussian"):
        return dp.GaussianDpEvent(noise)
    if kind == "laplace":
        return dp.LaplaceDpEvent(noise)
    if kind == "select":
        trial = dp.ComposedDpEvent([dp.SelfComposedDpEvent(one(part), part["count"]) for part in event["events"]])
        shape = math.inf if event["shape"] == "poisson" else event["shape"]
        return dp.dp_event.RepeatAndSelectDpEvent(trial, event["mean"], shape)
    if kind == "renyi":
        return dp.dp_event.ZCDpEvent(0.0, event["epsilon"])
    if kind == "discrete_laplace":
        return dp.dp_event.ZCDpEvent(0.5 / noise**2)
    if kind in ("exponential", "pure", "approximate"):
        return dp.dp_event.ZCDpEvent(event["epsilon"] ** 2 / (8 if kind == "exponential" else 2))
    raise ValueError(kind)

report = json.loads(pathlib.Path("privacy_report.json").read_text())
events = [entry["event"] for entry in report["ledger"]]
limits = [event["order"] for event in events if event["kind"] == "renyi"]
orders = [*range(2, 65), 80, 96, 128, 192, 256, 512, 1024, *limits]
accountant = rdp.RdpAccountant(orders)
delta = report["delta"]
for event in events:
    accountant.compose(one(event), event["count"])
    delta -= event["count"] * event.get("delta", 0.0)
spent = accountant.rdp
if limits:
    place = orders.index(min(limits))
    orders, spent = orders[place:place + 1], spent[place:place + 1]
print(rdp.compute_epsilon(orders, spent, delta)[0])
"""


def privacy_markdown(report: Mapping[str, Any]) -> str:
    """Renders privacy_report.json for people.

    Args:
      report: the parsed JSON; `epsilon` is None where there is no finite bound.

    Returns:
      Markdown: the claim, what it means for one privacy unit, every read of private data, the facts
      that were declared public, what is not covered, and how to recompute epsilon.
    """
    blocks = ["# Privacy report"]
    for headline, explanation in guarantee.banners(report):
        blocks.append(f"> # {headline}\n>\n> **{explanation}**")
    blocks += [
        "## In short",
        _text(guarantee.in_short(report)),
        "## The claim",
        _table(("quantity", "value"), claim_rows(report)),
    ]
    if report.get("warnings"):
        blocks += ["## Warnings", _bullets(report["warnings"])]
    blocks += [
        f"## What it means for one {_text(report.get('privacy_unit') or 'record')}",
        _bullets(guarantee.guarantee_sentences(report)),
        "## What was read, and at what price",
        _ledger_block(report),
        _path_block(report),
        "## Declared public",
        "These facts were taken as known to everyone. If one of them is not public, the guarantee does "
        "not cover what it reveals.",
        _bullets(report.get("declared_public") or ["Nothing beyond the schema's column names and kinds."]),
        "## What is not covered",
        _bullets([*(report.get("not_covered") or ()), *guarantee.general_limits(report)]),
        "## How to check epsilon",
        _recompute_block(report),
        "## Versions",
        _table(("package", "version"), sorted((report.get("versions") or {}).items())),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def claim_rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The claim as (quantity, value) pairs."""
    rows = [
        ("epsilon", format_epsilon(report.get("epsilon"))),
        ("delta", format_number(report.get("delta"))),
        ("privacy unit", format_setting(report.get("privacy_unit") or "record")),
        ("neighbouring sets of records", guarantee.relation_words(report)),
        ("accountant", format_setting(report.get("accountant"))),
    ]
    if not _by_renyi(report):
        rows.append(("epsilon by RDP (looser, as a cross-check)", format_epsilon(report.get("epsilon_rdp"))))
    return rows


def ledger_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The ledger as rows under LEDGER_HEADER."""
    rows = []
    for entry in report.get("ledger") or ():
        event = entry.get("event") or {}
        rows.append(
            (
                reads_words(entry),
                format_setting(entry.get("name")),
                guarantee.mechanism_words(entry),
                guarantee.noise_words(event),
                format_number(event.get("count", 1)),
                format_epsilon(entry.get("epsilon_alone")),
                format_share(entry.get("share")),
            )
        )
    return rows


def reads_words(entry: Mapping[str, Any]) -> str:
    """What a ledger entry read, as text."""
    reads = entry.get("reads")
    return "private records" if reads in (None, "", []) else format_setting(reads)


def _ledger_block(report: Mapping[str, Any]) -> str:
    """The ledger as a table with its reading instructions."""
    rows = ledger_rows(report)
    if not rows:
        return "The ledger is empty: no mechanism was charged."
    return (
        _table(LEDGER_HEADER, rows)
        + "\n\nThe noise multiplier is the standard deviation (Laplace: the scale) of the noise divided by "
        f"the most that one {_text(report.get('privacy_unit') or 'record')} can change what is measured. "
        "“Epsilon alone” is what the entry would cost if it were the only one, at the same delta; "
        "these do not add up to the total, because losses compose more cheaply than by addition."
    )


def _path_block(report: Mapping[str, Any]) -> str:
    """How training spent its share, where it did not do the same in every step."""
    path = report.get("path") or ()
    rows = path_rows(path)
    if not path_changes(path):
        return ""
    chosen = any("relative_noise" in block for block in path)
    why = (
        "The noise of each block was chosen while training ran, from released values only; the ledger was charged with "
        "the whole budget of the filter beforehand, which holds whatever was chosen."
        if chosen
        else "The schedule was fixed before training; the ledger holds every level of it."
    )
    return f"## How training spent its share\n\n{why}\n\n{_table(PATH_HEADER, rows)}"


def _recompute_block(report: Mapping[str, Any]) -> str:
    """Code and events from which anyone can recompute epsilon."""
    events = [entry.get("event") or {} for entry in report.get("ledger") or ()]
    lines = ",\n".join(" " + json.dumps({name: _json_value(event[name]) for name in event}) for event in events)
    if not guarantee.is_private(report):
        return f"There is no finite epsilon to check. The events:\n\n```json\n[\n{lines}\n]\n```"
    return (
        "Epsilon follows from delta and the events below alone (the same as in `privacy_report.json`). "
        "With `pip install dp-accounting`, independently of the code that made this report:\n\n"
        f"```python\n{RECOMPUTE_RENYI_CODE if _by_renyi(report) else RECOMPUTE_CODE}```\n\n```json\n[\n{lines}\n]\n```"
    )


def _by_renyi(report: Mapping[str, Any]) -> bool:
    """Whether an entry has no privacy-loss distribution, so that epsilon is by RDP."""
    kinds = {(entry.get("event") or {}).get("kind") for entry in report.get("ledger") or ()}
    return bool(kinds & {"select", "renyi"})


def _json_value(value: object) -> object:
    """The value as strict JSON has it: null for numbers that are not finite."""
    return finite_or_none(value) if isinstance(value, float) else value


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; nothing for no rows."""
    body = [" | ".join(_text(cell) for cell in row) for row in rows]
    if not body:
        return ""
    lines = [" | ".join(_text(name) for name in header), " | ".join("---" for _ in header), *body]
    return "\n".join(f"| {line} |" for line in lines)


def _bullets(items: Iterable[object]) -> str:
    return "\n".join(f"- {_text(item)}" for item in items)


def _text(value: object) -> str:
    """Text that cannot break out of a Markdown cell or smuggle in HTML."""
    text = " ".join(str(value).split())
    for character in "\\|`[]*":
        text = text.replace(character, "\\" + character)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
