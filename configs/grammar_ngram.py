"""Made-up reviews of a small grammar, which need no file, by counts of words and pairs of words.

python -m launch.run --config=configs/grammar_ngram.py --workdir=runs/grammar
After the name, joined by commas: epsilon=NUMBER, smoke; as in :epsilon=2
"""

from launch.config import finish_texts, sized_config


def get_config(arg=None):
    config, _ = sized_config("ngram", "grammar", arg)
    config.tokens.max_length = 96
    config.synthesis.num_samples = 5_000
    return finish_texts(config, arg)
