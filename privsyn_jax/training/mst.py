"""MST: the pairs of a tree that holds as much dependence as possible, chosen privately and measured at once.

Source: McKenna, Miklau and Sheldon 2021, "Winning the NIST Contest: A scalable and general approach to differentially
private synthetic data", Algorithm 2. Here columns alone are measured by the transform's histogram, the neighbouring
relation is add-or-remove, and rare codes are not merged.
"""

from __future__ import annotations

import itertools

import numpy as np

from privsyn_jax.privacy.release import contingency, exponential_choice
from privsyn_jax.training.marginals import Marginals, Measuring


def buy(task: Measuring) -> Marginals:
    """Tables of the d - 1 pairs of a spanning tree.

    A pair's score is the L1 distance, in rows, of its table from the product of released marginals: one row moves it by
    one at most. Each choice is among the pairs that join two parts of the tree so far.
    """
    cardinalities, one_way, bought = task.cardinalities, task.one_way, task.release("tree")
    what = f"{bought.count} pairs of a spanning tree, by exponential mechanisms of epsilon {bought.epsilon_each:.4g}"
    receipt = task.ledger.charge(bought.name, "tables of all pairs of columns", what, bought.event, upto=1)
    rows = task.codes.open(receipt)
    scores = {}
    for i, j in itertools.combinations(range(len(cardinalities)), 2):
        independent = np.outer(one_way.counts[i], one_way.counts[j]) / one_way.counts[i].sum()
        scores[i, j] = float(np.abs(contingency(rows, cardinalities, (i, j)) - independent).sum())
    tree: list[tuple[int, ...]] = []
    part = list(range(len(cardinalities)))  # of each column
    for _ in range(bought.count):
        joining = [(i, j) for i, j in scores if part[i] != part[j]]
        number = exponential_choice(
            [scores[pair] for pair in joining],
            sensitivity=task.plan.rows_per_unit,
            epsilon=bought.epsilon_each,
            noise=task.noise,
        )
        i, j = joining[number]
        tree.append((i, j))
        part = [part[i] if own == part[j] else own for own in part]
    return task.tables(tree, "pair marginals")
