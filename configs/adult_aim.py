"""AIM on UCI Adult; epsilon 1.

python -m launch.run --config=configs/adult_aim.py --config.data.dir=FOLDER --workdir=runs/adult_aim
"""

from launch.config import default_config, finish


def get_config(arg=None):
    config = default_config("aim")
    config.data.name = "adult"
    config.privacy.epsilon = 1.0
    config.privacy.delta = 1e-5
    if arg == "smoke":
        config.model.rounds_per_column, config.model.num_iterations = 1, 50
    return finish(config, arg)
