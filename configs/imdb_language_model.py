r"""IMDB reviews by a causal transformer that starts from bought counts of words and pairs of words.

python -m launch.run --config=configs/imdb_language_model.py --config.data.dir=FOLDER \
    --workdir=runs/imdb_language_model
After the name, joined by commas: gpu, epsilon=NUMBER, smoke; as in :gpu,epsilon=2
"""

from launch.config import finish_texts, sized_config


def get_config(arg=None):
    config, size = sized_config("language_model", "imdb", arg)
    config.tokens.max_length = 256
    config.privacy.budget.ngrams, config.privacy.budget.vocabulary = 0.9, 0.05  # the network refines what they say
    config.model.num_layers = 1
    config.training.num_steps, config.training.expected_batch_size = 60, 512
    config.training.learning_rate, config.training.ema_decay = 1e-2, 0.98
    config.model.label_strength = 1.3  # clearer classes
    config.synthesis.num_samples = 10_000
    if size == "gpu":
        config.model.num_layers = 2
        config.training.num_steps, config.training.expected_batch_size = 600, 4096
    return finish_texts(config, arg)
