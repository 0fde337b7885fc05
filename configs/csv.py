r"""Your own table, described by a schema; epsilon 1.

python -m launch.schema data.csv > schema.json    # then edit it
python -m launch.run --config=configs/csv.py --workdir=runs/mine \
    --config.data.path=data.csv --config.data.schema=schema.json
"""

from launch.config import default_config, finish


def get_config(arg=None):
    config = default_config("autoregressive")
    config.data.name = "csv"
    config.privacy.epsilon = 1.0
    return finish(config, arg)
