"""UCI Adult from its original files; epsilon 1.

python -m launch.run --config=configs/adult_autoregressive.py --config.data.dir=FOLDER --workdir=runs/adult
"""

from launch.config import default_config, finish

COLUMN_ORDER = (
    "income", "relationship", "marital-status", "sex", "age", "education-num", "education", "occupation",
    "workclass", "hours-per-week", "capital-gain", "capital-loss", "race", "native-country", "fnlwgt",
)  # fmt: skip


def get_config(arg=None):
    config = default_config("autoregressive")
    config.data.name = "adult"
    config.model.column_order = COLUMN_ORDER
    config.privacy.epsilon = 1.0
    config.privacy.delta = 1e-5
    config.privacy.budget.marginals = 0.75
    config.training.expected_batch_size = 2048
    return finish(config, arg)
