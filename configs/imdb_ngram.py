r"""IMDB reviews by counts of words and pairs of words, from two noisy sums; no network: the honest baseline.

python -m launch.run --config=configs/imdb_ngram.py --config.data.dir=FOLDER --workdir=runs/imdb_ngram
After the name, joined by commas: gpu, epsilon=NUMBER, smoke; as in :epsilon=2
"""

from launch.config import finish_texts, sized_config


def get_config(arg=None):
    config, _ = sized_config("ngram", "imdb", arg)
    config.tokens.max_length = 256
    config.model.label_strength = 1.3  # clearer classes
    config.synthesis.num_samples = 10_000
    return finish_texts(config, arg)
