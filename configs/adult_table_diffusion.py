r"""UCI Adult by diffusion that reveals columns in random order; epsilon 1.

python -m launch.run --config=configs/adult_table_diffusion.py --config.data.dir=FOLDER \
    --workdir=runs/adult_table_diffusion
"""

from launch.config import default_config, finish


def get_config(arg=None):
    config = default_config("table_diffusion")
    config.data.name = "adult"
    config.privacy.epsilon = 1.0
    config.privacy.delta = 1e-5
    config.training.num_steps = 600
    config.training.expected_batch_size = 2048
    config.training.num_draws = 4
    config.training.learning_rate = 1e-2
    return finish(config, arg)
