r"""MIMIC-III admissions from the user's PhysioNet folder; epsilon 1 for a patient with up to 3 admissions.

python -m launch.run --config=configs/mimic3_autoregressive.py --config.data.dir=FOLDER --workdir=runs/mimic3 \
    [--config.data.target=readmitted_30_days] [--config.data.max_records_per_unit=5]
After the name, joined by commas: demo (FOLDER holds the open demo, whose 100 patients teach nothing), smoke
"""

from launch.config import default_config, finish


def get_config(arg=None):
    config = default_config("autoregressive")
    config.data.name = "mimic3"
    config.privacy.epsilon = 1.0
    config.privacy.delta = 1e-6
    words = arg.split(",") if arg else []
    others = [word for word in words if word != "demo"]
    config = finish(config, ",".join(others) or None)
    if "demo" in words:
        config.data.name = "mimic3_demo"
        config.privacy.delta = 1e-3
        config.training.expected_batch_size = 16
    return config
