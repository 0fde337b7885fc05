"""Text configs through the whole path: downstream scores, vocabulary, fluency and bits per byte, beside real data.

python benchmarks/texts.py --data-dir FOLDER --json docs/results/text.json --configs imdb_ngram,imdb_language_model \
    [--epsilons 0.5,1,2,inf] [--seeds 0,1,2] [--size gpu] [--references FOLDER] [--quick]

FOLDER holds imdb/; see config_runs.
"""

from config_runs import main

COLUMNS = (
    "lstm_f1",
    "lstm_accuracy",
    "linear_f1",
    "linear_accuracy",
    "vocabulary_kl",
    "bigram_kl",
    "bits_per_byte",
    "outside_perplexity",
    "distinct_2",
    "mauve_lsa",
    "copied_8gram_rate",
    "membership_auc",
)

if __name__ == "__main__":
    main("text configs through the whole path", COLUMNS)
