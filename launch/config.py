"""Between config files and settings: the only code that knows ConfigDict."""

from __future__ import annotations

import dataclasses
from typing import Any

from ml_collections import ConfigDict, config_dict

from privsyn_jax.privacy_settings import PrivacySettings
from privsyn_jax.settings import Settings, model_defaults, settings_from_dict


def default_config(model: str = "autoregressive") -> Any:
    """ConfigDict of every setting at its default, for a config file to change what differs."""
    plain = Settings(model=model_defaults(model)).to_dict()
    for field in dataclasses.fields(PrivacySettings):
        if str(field.type) == "float | None":  # may be a number or None, on the command line too
            value = plain["privacy"][field.name]
            plain["privacy"][field.name] = config_dict.FieldReference(value, field_type=object)
    return ConfigDict(plain)


def finish(config: Any, arg: str | None) -> Any:
    """Applies the argument after the colon in --config=FILE:ARG; `smoke` shrinks the run to seconds."""
    if arg == "smoke":
        config.training.num_steps = 20
        config.training.expected_batch_size = 256
        config.training.steps_per_dispatch = 10
        config.synthesis.num_samples = 500
        if "num_calibration_rows" in config.model:
            config.model.num_calibration_rows = 512
    elif arg:
        raise ValueError(f"config argument {arg!r} is unknown: use smoke or none")
    return config


def sized_config(model: str, data: str, arg: str | None, *, epsilon: float = 1.0) -> tuple[Any, str]:
    """(ConfigDict, size) for images or texts: `arg` joins by commas a size, cpu or gpu, and epsilon=NUMBER, and smoke.

    The default is cpu, and `epsilon`. `finish_images` and `finish_texts` apply smoke.
    """
    config, size = default_config(model), "cpu"
    config.data.name = data
    config.privacy.epsilon, config.privacy.delta = epsilon, 1e-5
    for word in _words(arg):
        if word in ("cpu", "gpu"):
            size = word
        elif word.startswith("epsilon="):
            try:
                config.privacy.epsilon = float(word.removeprefix("epsilon="))
            except ValueError:
                raise ValueError(f"config argument {word!r} gives no number: write epsilon=1 or epsilon=inf") from None
        elif word != "smoke":
            raise ValueError(f"config argument {word!r} is unknown: use cpu, gpu, smoke or epsilon=NUMBER")
    return config, size


def finish_images(config: Any, arg: str | None) -> Any:
    """Applies `smoke`: a run of seconds."""
    if "smoke" in _words(arg):
        config.training.num_steps, config.training.expected_batch_size = 4, 32
        config.training.steps_per_dispatch, config.training.generator_batch_size = 2, 8
        config.training.num_draws = 1
        config.warm_start.num_steps, config.warm_start.batch_size, config.warm_start.num_images = 4, 8, 100
        config.synthesis.num_samples = 200
        config.evaluation.classifier_steps, config.evaluation.feature_images = 10, 200
        smaller = {"channels": (8, 16), "generator_channels": (8, 16), "width": 8, "num_sampling_steps": 3}
        if config.model.name == "mean_embedding":
            smaller |= {"num_steps": 4, "num_features": 50}
        for name, value in smaller.items():
            if name in config.model:
                with config.unlocked():
                    config.model[name] = value
    return config


def finish_texts(config: Any, arg: str | None) -> Any:
    """Applies `smoke`: a run of seconds."""
    if "smoke" in _words(arg):
        config.training.num_steps, config.training.expected_batch_size = 4, 32
        config.training.steps_per_dispatch = 2
        config.tokens.max_length = 24
        config.synthesis.num_samples = 100
        config.evaluation.lstm_steps, config.evaluation.lstm_length = 5, 24
        config.evaluation.num_records = 500
        for name, value in {"width": 8, "released_dim": 4, "latent_dim": 4}.items():
            if name in config.model:
                config.model[name] = value
    return config


def _words(arg: str | None) -> list[str]:
    return arg.split(",") if arg else []


def to_settings(config: Any) -> Settings:
    """Checked settings; raises UserError."""
    return settings_from_dict(config.to_dict())


def to_study(config: Any) -> Any:
    """The study that a config of configs/studies describes; raises UserError.

    `models` maps a name to a config as `default_config` makes it; dotted paths of settings are written with "/".
    """
    from privsyn_jax.study.plan import Study, Tuning

    plain = config.to_dict()
    tuning = plain["tuning"]
    return Study(
        models=plain["models"],
        contestants={name: _paths(changes) for name, changes in plain["contestants"].items()},
        baseline=plain["baseline"],
        epsilons=tuple(plain["epsilons"]),
        seeds=tuple(plain["seeds"]),
        metrics=tuple(plain["metrics"]),
        tuning=Tuning(_paths(tuning["grid"]), tuple(tuning["seeds"]), tuning["metric"]) if tuning else None,
        attacks=tuple(plain.get("attacks", ())),
        utility=plain.get("utility", {}),
        leakage=plain.get("leakage", {}),
    )


def _paths(changes: dict[str, Any]) -> dict[str, Any]:
    return {path.replace("/", "."): value for path, value in changes.items()}
