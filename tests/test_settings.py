"""Settings: every mistake is one sentence that names the setting; a round trip loses nothing."""

import json
import math

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privsyn_jax.privacy.clipping import METHODS
from privsyn_jax.privacy_settings import BudgetSettings, PrivacySettings
from privsyn_jax.settings import Settings, settings_from_dict
from privsyn_jax.training.parallel import WRAPPERS
from privsyn_jax.types import UserError
from privsyn_jax.workdir import plain


def complaint(sections) -> str:
    with pytest.raises(UserError) as caught:
        settings_from_dict(sections)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("sections", "unknown", "nearest"),
    [
        ({"privacy": {"epsilom": 1.0}}, "privacy.epsilom", "privacy.epsilon"),
        ({"privacy": {"budget": {"marginal": 0.1}}}, "privacy.budget.marginal", "privacy.budget.marginals"),
        ({"trainings": {}}, "trainings", "training"),
        ({"training": {"steps": 5}}, "training.steps", "training.num_steps"),
        ({"model": {"widht": 8}}, "model.widht", "model.width"),
        ({"model": {"cardinalities": (2,)}}, "model.cardinalities", "model."),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(sections, unknown, nearest):
    message = complaint(sections)
    assert message.startswith(f"unknown setting {unknown!r}") and f"did you mean '{nearest}" in message


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("training", "num_steps", "many"),
        ("training", "num_steps", 2.5),
        ("training", "num_steps", None),
        ("training", "num_steps", True),
        ("training", "num_steps", math.inf),
        ("training", "num_steps", math.nan),
        ("training", "learning_rate", "fast"),
        ("privacy", "epsilon", "one"),
        ("privacy", "epsilon", True),
        ("privacy", "enabled", 1),
        ("privacy", "enabled", "no"),
        ("privacy", "delta", None),
        ("privacy", "delta", [1e-5]),
        ("data", "path", 3),
        ("data", "path", None),
        ("synthesis", "conditions", {"a": 1}),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(section, key, value):
    message = complaint({section: {key: value}})
    assert message.startswith(f"{section}.{key} is {value!r}: give a value of type")


@pytest.mark.parametrize(
    "sections", [{"privacy": 1.0}, {"model": "masked_mlp"}, {"privacy": {"budget": 0.3}}, {"training": [1, 2]}]
)
def test_a_value_in_place_of_a_group_is_refused(sections):
    assert "give a group of settings" in complaint(sections)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        *(("privacy", "epsilon", value) for value in (0, -1.0, math.nan, -math.inf)),
        *(("privacy", "delta", value) for value in (-1e-9, 1.0, 2, math.nan, math.inf)),
        *(("privacy", "l2_clip_norm", value) for value in (0, -1.0, math.nan, math.inf)),
        *(("training", name, 0) for name in ("num_steps", "num_draws", "steps_per_dispatch", "learning_rate")),
        *(("training", name, -1) for name in ("microbatch_size", "num_devices")),
        *(("training", name, "new") for name in ("gradient_method", "compute_dtype", "device_wrapper", "records_on")),
        ("training", "expected_batch_size", -1),
        ("training", "ema_decay", 1.0),
        ("training", "ema_decay", -0.1),
        ("transform", "num_bins", 1),
        ("transform", "num_cells", 16),
        ("transform", "edges", "private"),
        ("data", "split", "random"),
        ("data", "test_fraction", 0.0),
        ("data", "test_fraction", 1.0),
        ("data", "out_of_bounds", "ignore"),
        ("synthesis", "num_samples", -1),
        ("model", "name", "gan_of_my_dreams"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(section, key, value):
    assert complaint({section: {key: value}}).startswith(f"{section}.{key} is ")


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf])
def test_a_noise_multiplier_out_of_range_is_refused(value):
    message = complaint({"privacy": {"epsilon": None, "noise_multiplier": value}})
    assert message.startswith("privacy.noise_multiplier is ")


@pytest.mark.parametrize("given_values", [(1.0, 1.1), (None, None), (math.inf, 1.0)])
def test_exactly_one_of_epsilon_and_noise_multiplier_is_given(given_values):
    epsilon, noise_multiplier = given_values
    message = complaint({"privacy": {"epsilon": epsilon, "noise_multiplier": noise_multiplier}})
    assert "privacy.epsilon and privacy.noise_multiplier exclude each other" in message


@pytest.mark.parametrize("budget", [{"transform": 0.5, "marginals": 0.45, "categories": 0.05}, {"marginals": 1.0}])
def test_a_budget_without_a_share_for_training_is_refused(budget):
    assert complaint({"privacy": {"budget": budget}}).startswith("privacy.budget")


@pytest.mark.parametrize("share", [-0.1, math.nan, math.inf])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(UserError, match=r"privacy\.budget\.categories is"):
        BudgetSettings(categories=share)


def test_what_counts_as_private():
    assert PrivacySettings(epsilon=2.0).is_private
    assert PrivacySettings(epsilon=None, noise_multiplier=1.0).is_private
    assert not PrivacySettings(epsilon=math.inf).is_private
    assert not PrivacySettings(enabled=False).is_private
    assert PrivacySettings(seed=-1).noise_seed is None and PrivacySettings(seed=0).noise_seed == 0


positive = st.floats(1e-6, 1e6)
sections = st.fixed_dictionaries(
    {
        "privacy": st.one_of(
            st.fixed_dictionaries({"epsilon": st.floats(1e-6, 100) | st.just(math.inf)}),
            st.fixed_dictionaries({"epsilon": st.none(), "noise_multiplier": positive}),
            st.fixed_dictionaries({"enabled": st.just(False)}),
        ),
        "training": st.fixed_dictionaries(
            {},
            optional={"num_steps": st.integers(1, 10**9), "learning_rate": positive, "ema_decay": st.floats(0, 0.99)},
        ),
        "data": st.fixed_dictionaries({}, optional={"path": st.text(), "test_fraction": st.floats(0.01, 0.99)}),
        "model": st.fixed_dictionaries(
            {}, optional={"width": st.integers(1, 999), "column_order": st.just(["b", "a"])}
        ),
        "seed": st.integers(0, 2**31),
    }
)


@hypothesis.settings(deadline=None)
@given(sections)
def test_round_trip_through_a_dict_and_through_strict_json(given_sections):
    settings = settings_from_dict(given_sections)
    assert settings_from_dict(settings.to_dict()) == settings
    text = json.dumps(plain(settings.to_dict()), allow_nan=False)
    assert settings_from_dict(json.loads(text)) == settings


def test_defaults_and_whole_numbers_in_either_form():
    assert settings_from_dict({}) == Settings()
    settings = settings_from_dict({"training": {"num_steps": 50.0, "learning_rate": 1}})
    assert type(settings.training.num_steps) is int and type(settings.training.learning_rate) is float


@pytest.mark.parametrize("value", [101.0, 1e6])
def test_an_epsilon_that_protects_nobody_is_refused(value):
    with pytest.raises(UserError, match=r"privacy\.epsilon"):
        settings_from_dict({"privacy": {"epsilon": value}})


@pytest.mark.parametrize("value", [1e-20, 1e20])
def test_a_clip_norm_whose_square_float32_cannot_hold_is_refused(value):
    with pytest.raises(UserError, match=r"privacy\.l2_clip_norm"):
        settings_from_dict({"privacy": {"l2_clip_norm": value}})


def test_every_gradient_method_and_wrapper_can_be_set():
    for name, known in (("gradient_method", METHODS), ("device_wrapper", WRAPPERS)):
        for value in known:
            assert getattr(settings_from_dict({"training": {name: value}}).training, name) == value
