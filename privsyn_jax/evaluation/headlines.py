"""The few numbers to print at the end of a run."""

from __future__ import annotations

from typing import Any

NUM_HEADLINES = 5

# In order of preference; the first NUM_HEADLINES that exist are taken.
_CANDIDATES = (
    ("logistic_regression_auc", "logistic regression, AUC"),
    ("boosting_auc", "boosting, AUC"),
    ("logistic_regression_accuracy", "logistic regression, accuracy"),
    ("ridge_r2", "linear regression, R²"),
    ("boosting_r2", "boosting, R²"),
    ("mean_accuracy", "mean of the nets, accuracy"),
    ("fid_trained_features", "FID, features of a net trained on real images"),
    ("fid_random_features", "FID, features of a random net"),
    ("fid_custom_features", "FID, own features"),
    ("label_agreement", "label agreement"),
    ("linear_accuracy", "linear classifier, accuracy"),
    ("lstm_accuracy", "LSTM, accuracy"),
    ("outside_perplexity", "perplexity under an outside trigram model"),
    ("mauve_lsa", "MAUVE on features of latent semantic analysis"),
    ("membership_auc", "membership attack, AUC"),
    ("copied_8gram_rate", "runs of eight words that a training text holds"),
    ("distinct_2", "different pairs of words per pair"),
    ("nearer_to_training_rate", "nearer to training records than to held-out ones"),
    ("copy_of_training_rate", "images equal to a training image"),
    ("pairwise_total_variation", "mean 2-way total variation"),
    ("emd", "EMD of the worst column"),
    ("mean_total_variation", "mean 1-way total variation"),
    ("correlation_difference", "mean difference of correlations"),
    ("training_copy_rate", "rows equal to a training row"),
    ("duplicate_rate", "duplicate rows"),
)


def headline(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The most telling rows, at most NUM_HEADLINES of them.

    With a target of classes: logistic regression AUC and accuracy, boosting AUC, mean 2-way total
    variation and the largest EMD of a column. Without one, other fidelity and sanity metrics move up. Of
    images: mean accuracy of the nets, FID, label agreement and nearness to training images. Of texts: accuracies of a
    linear classifier and of an LSTM, perplexity, MAUVE and the membership attack; without classes, copied runs and
    different pairs move up.

    Args:
      metrics: rows of an Evaluation.

    Returns:
      Copies of the chosen rows, each with a "label" in words.
    """
    chosen = []
    for metric, label in _CANDIDATES:
        found = [row for row in metrics if row["metric"] == metric]
        if found and len(chosen) < NUM_HEADLINES:
            worst = max(found, key=lambda row: row["value"])
            suffix = f" ({worst['column']})" if worst["column"] is not None else ""
            chosen.append({**worst, "label": label + suffix})
    return chosen
