"""A plan in plain words: where the budget goes, and why the total holds."""

from __future__ import annotations

import math
from collections.abc import Iterator

from privsyn_jax.plan import Plan
from privsyn_jax.types import AnySchema, Schema

_PURPOSE = {
    "categories": "values of columns whose categories are not public",
    "histograms": "bin edges, values within bins, first guesses",
    "pair scores": "which pairs of columns depend on each other",
    "pair marginals": "how the chosen pairs depend on each other",
    "class counts": "columns, within every class of the target if that is told",
    "class moments": "columns and pairs of them, within every class",
    "latent prior": "where latents lie, measured when training is done",
    "tree": "which pairs of columns make the best tree",
    "rounds": "pairs of columns: which are modelled worst, and their tables, in turn",
    "network": "which columns a column depends on",
    "marginals": "how columns depend on those",
    "class means": "class sizes, class means, brightness",
    "covariances": "how images of a class vary",
    "covariances of cells": "the same in parts of every class",
    "mean embedding": "random features of every class, which the generator is to match",
    "vocabulary": "frequent words that no public list has",
    "words by class": "how frequent every word is in every class",
    "pairs of words": "which words follow which",
    "training": "everything else that the generator learns",
}


def plan_lines(plan: Plan, schema: AnySchema) -> list[str]:
    """The budget table and the mechanism in words."""
    target = f"epsilon {plan.epsilon:.4g}" if plan.has_noise else "NOT PRIVATE"
    unit = schema.privacy_unit
    units = f", num_units {schema.num_units}" if isinstance(schema, Schema) and schema.unit_column else ""
    lines = [f"plan: {target}, delta {plan.delta:.3g} per {unit}; num_records {schema.num_records}{units}"]
    if plan.has_noise:
        lines += [
            f"  whatever is released, nobody's odds that one given {unit} is among the records change "
            f"by more than a factor of {math.exp(plan.epsilon):.3g}",
            f"  (but for a chance of {plan.delta:.3g})",
        ]
    lines += [f"  {line}" for line in unit_lines(schema)]
    lines.append(f"  {'what is bought':<16} {'share':>6}  {'noise multiplier':<17} for")
    for release in plan.releases:
        noise = f"{release.noise_multiplier:.4g}"
        lines.append(f"  {release.name:<16} {release.share:>6.1%}  {noise:<17} {_PURPOSE[release.name]}")
    if plan.levels:
        lines.append(f"  {'training':<16} {plan.training_share:>6.1%}  {_range(plan):<17} {_PURPOSE['training']}")
        lines += [f"  {line}" for line in _training(plan, unit if plan.rows_per_unit > 1 else "record")]
    return [*lines, *(f"WARNING: {warning}" for warning in plan.warnings)]


def unit_lines(schema: AnySchema) -> list[str]:
    """What is protected as one, where that is more than a row."""
    if not (isinstance(schema, Schema) and schema.unit_column):
        return []
    unit, most = schema.privacy_unit, schema.rows_per_unit
    rows = f"up to {most} rows" if most > 1 else "1 row"
    return [
        f"one {unit}: {rows} of one {schema.unit_column!r}, protected together; further ones are not read (a public "
        "rule says which)"
    ]


def _training(plan: Plan, unit: str) -> Iterator[str]:
    levels = plan.levels
    if plan.votes is not None:
        yield from _voting(plan, unit)
        return
    who = f"each {unit} with probability {_span([level.sampling_rate for level in levels])}"
    if plan.num_groups > 1 and levels[0].sampling_rate == 1.0:
        who = f"one of {plan.num_groups} random parts of the data, in turn (no amplification)"
    elif plan.num_groups > 1:
        who += f" when its group's turn comes, every {plan.num_groups} steps"
    norm = _span([level.l2_clip_norm for level in levels])
    yield f"training takes {plan.num_steps} steps; a step draws {who}, and clips its gradient to L2 norm {norm}"
    if len(levels) > 1:
        yield f"noise, clipping norm and batch follow a schedule in {len(levels)} levels, scaled to the total"
    if plan.adaptive is not None:
        adaptive = plan.adaptive
        yield (
            f"the noise of each of {adaptive.num_blocks} blocks is chosen from released values by the rule "
            f"{adaptive.rule!r}, within a factor of {adaptive.largest_ratio:g} of the noise multiplier above"
        )
        if adaptive.loss_share:
            yield f"a noisy loss takes {adaptive.loss_share:.1%} of the precision of each step"
        if adaptive.filter == "renyi":
            yield (
                f"a Renyi filter of order {adaptive.order:g} stops before the block that would exceed its budget of "
                f"{adaptive.budget:.4g}, whatever is chosen"
            )
        else:
            yield (
                f"a filter charges each block with as many steps at that noise as dominate it, and stops before the "
                f"block that would exceed {plan.num_steps} of them, whatever is chosen (slack: {adaptive.leak:.2g} of "
                "delta)"
            )


def _voting(plan: Plan, unit: str) -> Iterator[str]:
    assert plan.votes is not None
    num_teachers, num_rows = plan.votes
    yield (
        f"training takes {plan.num_steps} steps; in each, {num_teachers} teachers vote on {num_rows} generated rows; a "
        f"{unit} is one teacher's, so it moves the votes by at most sqrt({num_rows}) (no amplification)"
    )
    if len(plan.levels) > 1:
        yield f"noise follows a schedule in {len(plan.levels)} levels, scaled to the total"


def _range(plan: Plan) -> str:
    return _span([level.noise_multiplier for level in plan.levels])


def _span(values: list[float]) -> str:
    """The value, or the first and the last with the extreme between them."""
    first, last = values[0], values[-1]
    shown = [first] if len(set(values)) == 1 else [first, last]
    extreme = max(values, key=lambda value: abs(value - (first + last) / 2))
    if len(shown) == 2 and not min(first, last) <= extreme <= max(first, last):
        shown.insert(1, extreme)
    return " to ".join(f"{value:.4g}" for value in shown)
