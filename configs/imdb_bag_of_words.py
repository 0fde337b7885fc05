r"""IMDB reviews as independent words, by class, from one noisy sum: what a classifier can learn without any order.

python -m launch.run --config=configs/imdb_bag_of_words.py --config.data.dir=FOLDER --workdir=runs/imdb_bag_of_words
After the name, joined by commas: gpu, epsilon=NUMBER, smoke; as in :epsilon=2
"""

from launch.config import finish_texts, sized_config


def get_config(arg=None):
    config, _ = sized_config("ngram", "imdb", arg)
    config.model.order = 1
    config.tokens.max_length = 256
    config.model.label_strength = 1.3  # clearer classes
    config.synthesis.num_samples = 10_000
    return finish_texts(config, arg)
