"""Membership by the posteriors of a classifier trained on synthetic records, learned from a shadow classifier."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from privsyn_jax.evaluation.attacks.candidates import prepare
from privsyn_jax.evaluation.attacks.scores import AttackResult, membership_result
from privsyn_jax.evaluation.encode import Encoded, Levels
from privsyn_jax.types import Schema, UserError

_TREES = 30
_SORTED = 3  # largest posteriors that the attack classifier sees
_FLOOR = 1e-3  # posteriors below it look alike; a forest of 30 trees has none between 0 and this
_LEAST_SHADOW = 4  # records of each kind that the attack classifier is fitted on


class Labelled(NamedTuple):
    """Records for a classifier: features [n, f] (dense or sparse) and labels int [n]."""

    features: Any
    labels: np.ndarray

    def __getitem__(self, places: Any) -> Labelled:  # type: ignore[override]
        return Labelled(self.features[places], self.labels[places])


class Fit(Protocol):
    """Trains a classifier with `predict_proba` and `classes_`, as in scikit-learn."""

    def __call__(self, records: Labelled, seed: int) -> Any: ...


def shadow_posteriors(
    schema: Schema, train: pd.DataFrame, test: pd.DataFrame, synthetic: pd.DataFrame, *, seed: int
) -> AttackResult:
    """The black-box attack on a classifier of the target column, see `posterior_result`.

    Classifiers are random forests whose trees are grown to the end, which remember most. Without a target the last
    categorical column is predicted, and without one the quantile bins of the last column.

    Args:
      schema: public facts.
      train: records trained on: the members.
      test: held-out records: half of them train the attack, the others are the controls.
      synthetic: records released.
      seed: draws the candidates and the forests.

    Raises:
      UserError: see `candidates.prepare`; or there is nothing to predict the target from, or one class only.
    """
    tables = prepare(schema, train, test, synthetic, seed=seed)
    index = target_index(tables.all_levels, schema.target)
    members, controls, reference, known = (
        Labelled(tree_features(tables.all_levels, table, exclude=index), table.codes[:, index])
        for table in (tables.members, tables.controls, tables.reference, tables.synthetic)
    )
    return posterior_result(members, controls, reference, known, fit=fit_forest, seed=seed)


def posterior_result(
    members: Labelled, controls: Labelled, reference: Labelled, synthetic: Labelled, *, fit: Fit, seed: int
) -> AttackResult:
    """Learns on a shadow classifier how posteriors of its own training records look, and looks for it on the target.

    The target classifier is trained on the synthetic records. The adversary has reference records: a shadow classifier
    is trained on one half of them, and an attack classifier learns to tell this half from the other by the largest
    posteriors in falling order and the posterior of the record's own label. It is then applied to the target
    classifier's posteriors of members and controls.

    Args:
      members, controls, reference, synthetic: records of each kind; the first two are scored.
      fit: trains the target and the shadow classifier.
      seed: of the classifiers and of the halves.

    Raises:
      UserError: the reference records are too few, or synthetic or shadow records hold one class only.

    Source: Salem et al. 2019, "ML-Leaks", adversary 1 (one shadow model); the own label's posterior after Shokri et
    al. 2017.
    """
    name, half = "shadow_posteriors", len(reference.labels) // 2
    if half < _LEAST_SHADOW:
        raise UserError(
            f"there are {len(reference.labels)} reference records to train a shadow classifier on: give at least "
            f"{4 * _LEAST_SHADOW} held-out records"
        )
    order = np.random.default_rng(seed).permutation(len(reference.labels))
    inside, outside = reference[order[:half]], reference[order[half : 2 * half]]
    for described, records in (("synthetic", synthetic), ("shadow", inside)):
        if len(np.unique(records.labels)) < 2:
            raise UserError(f"the {described} records hold one class only: name a target that varies")
    with threadpool_limits(limits=1):
        target, shadow = fit(synthetic, seed), fit(inside, seed)
        seen = np.concatenate([posterior_features(shadow, records) for records in (inside, outside)])
        attack: Any = make_pipeline(StandardScaler(), LogisticRegression())
        attack.fit(seen, np.repeat([1, 0], half))
        scores = [attack.decision_function(posterior_features(target, records)) for records in (members, controls)]
    return membership_result(name, *scores, seed=seed)


def posterior_features(classifier: Any, records: Labelled) -> np.ndarray:
    """Logits of the three largest posteriors, in falling order, and of the own label's, float64 [n, 4].

    A label that the classifier has not seen has posterior 0, and so have classes where there are fewer than three.
    """
    posteriors = classifier.predict_proba(records.features)
    padded = np.pad(posteriors, ((0, 0), (0, _SORTED)))
    largest = -np.sort(-padded, axis=1)[:, :_SORTED]
    places = np.minimum(np.searchsorted(classifier.classes_, records.labels), len(classifier.classes_) - 1)
    own = np.where(classifier.classes_[places] == records.labels, posteriors[np.arange(len(places)), places], 0.0)
    clipped = np.clip(np.column_stack([largest, own]), _FLOOR, 1 - _FLOOR)
    return np.log(clipped / (1 - clipped))


def fit_forest(records: Labelled, seed: int) -> RandomForestClassifier:
    """A random forest of trees grown until their leaves are pure."""
    forest = RandomForestClassifier(n_estimators=_TREES, random_state=seed, n_jobs=1)
    return forest.fit(records.features, records.labels)


def tree_features(all_levels: list[Levels], table: Encoded, *, exclude: int) -> np.ndarray:
    """Numbers as scaled, -1 if missing, and category codes, of all columns but one, float32 [n, D - 1].

    Raises:
      UserError: there is no other column.
    """
    kept = [i for i in range(len(all_levels)) if i != exclude]
    if not kept:
        raise UserError(f"there is no column to predict {all_levels[exclude].column.name} from")
    columns = [
        np.nan_to_num(table.scaled[:, i], nan=-1.0) if all_levels[i].is_numeric else table.codes[:, i] for i in kept
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def target_index(all_levels: list[Levels], target: str | None) -> int:
    """Position of the target, or else of the last categorical column, or else the last column."""
    names = [levels.column.name for levels in all_levels]
    if target in names:
        return names.index(target)
    categorical = [i for i, levels in enumerate(all_levels) if not levels.is_numeric]
    return categorical[-1] if categorical else len(names) - 1
