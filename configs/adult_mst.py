"""MST on UCI Adult; epsilon 1.

python -m launch.run --config=configs/adult_mst.py --config.data.dir=FOLDER --workdir=runs/adult_mst
"""

from launch.config import default_config, finish


def get_config(arg=None):
    config = default_config("mst")
    config.data.name = "adult"
    config.privacy.epsilon = 1.0
    config.privacy.delta = 1e-5
    if arg == "smoke":
        config.model.num_iterations = 100
    return finish(config, arg)
