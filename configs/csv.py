"""Your own table, described by a schema (propose one with launch.schema, then edit it); epsilon 1.

python -m launch.run --config=configs/csv.py --config.data.path=data.csv --config.data.schema=schema.json --workdir=runs/mine
"""

from launch.config import default_config, finish


def get_config(arg=None):
    config = default_config("autoregressive")
    config.data.name = "csv"
    config.privacy.epsilon = 1.0
    return finish(config, arg)
