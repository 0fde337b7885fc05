"""The ledger: what is charged stays, on disk before it counts, and comes back exactly."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privsyn_jax.privacy import accounting
from privsyn_jax.privacy.ledger import Entry, Ledger, Receipt, check_charged
from privsyn_jax.report import guarantee, privacy_markdown
from privsyn_jax.types import UserError

GAUSSIAN = {"kind": "gaussian", "noise_multiplier": 4.0, "count": 1}
STEPS = {"kind": "poisson_gaussian", "sampling_rate": 0.05, "noise_multiplier": 3.0, "count": 50}

positive = st.floats(0, 1e300, exclude_min=True)
counts = st.integers(1, 10**12)
events = st.one_of(
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["gaussian", "laplace"]), "noise_multiplier": positive, "count": counts}
    ),
    st.fixed_dictionaries(
        {
            "kind": st.just("poisson_gaussian"),
            "sampling_rate": st.floats(0, 1, exclude_min=True),
            "noise_multiplier": positive,
            "count": counts,
        }
    ),
    st.fixed_dictionaries({"kind": st.sampled_from(["pure", "exponential"]), "epsilon": positive, "count": counts}),
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["discrete_gaussian", "discrete_laplace"]),
            "noise_multiplier": positive,
            "sensitivity": st.integers(1, 2**53),
            "count": counts,
        }
    ),
    st.fixed_dictionaries(
        {"kind": st.just("renyi"), "order": st.floats(1, 1e9, exclude_min=True), "epsilon": positive, "count": counts}
    ),
    st.fixed_dictionaries(
        {
            "kind": st.just("select"),
            "events": st.just([GAUSSIAN, STEPS]),
            "mean": st.floats(1, 1e6),
            "shape": st.one_of(st.just("poisson"), st.floats(0, 100)),
            "count": st.just(1),
        }
    ),
    st.fixed_dictionaries(
        {"kind": st.just("approximate"), "epsilon": positive, "delta": st.floats(0, 1), "count": counts}
    ),
)
entries = st.builds(Entry, st.text(), st.text(), st.text(), events)


def charged(*charges) -> Ledger:
    ledger = Ledger()
    for event in charges:
        ledger.charge("a release", "all columns", "noisy counts", event)
    return ledger


@settings(deadline=None)
@given(st.lists(entries, max_size=5))
def test_json_round_trip_is_exact(recorded):
    ledger = Ledger(recorded)
    text = json.dumps(ledger.to_list(), allow_nan=False)
    assert Ledger.from_list(json.loads(text)).entries == ledger.entries == tuple(recorded)


def test_every_charge_is_on_disk_when_charge_returns(tmp_path):
    path = tmp_path / "ledger.json"
    ledger = Ledger(path=path)
    for number, event in enumerate([GAUSSIAN, STEPS], start=1):
        ledger.charge(f"release {number}", "all columns", "noisy counts", event)
        assert json.loads(path.read_text())["entries"] == ledger.to_list() and len(ledger.entries) == number
        assert [file.name for file in tmp_path.iterdir()] == ["ledger.json"]
    assert Ledger.from_list(json.loads(path.read_text())["entries"]).entries == ledger.entries


def test_entries_cannot_be_taken_back_or_changed():
    event = dict(GAUSSIAN)
    ledger = charged(event)
    event["noise_multiplier"] = 1e6  # the caller's dict, not the ledger's
    assert ledger.entries[0].event["noise_multiplier"] == 4.0
    ledger.events.clear()
    assert isinstance(ledger.entries, tuple) and len(ledger.entries) == 1


def test_a_refused_charge_names_the_entry_and_leaves_no_trace(tmp_path):
    ledger = Ledger(path=tmp_path / "ledger.json")
    with pytest.raises(ValueError, match=r"ledger entry 'histograms': event .*noise_multiplier = nan"):
        ledger.charge("histograms", "all columns", "noisy counts", {**GAUSSIAN, "noise_multiplier": math.nan})
    assert ledger.entries == () and not any(tmp_path.iterdir())


def test_epsilon_and_delta_invert_each_other_and_order_does_not_matter():
    ledger, other_way = charged(GAUSSIAN, STEPS), charged(STEPS, GAUSSIAN)
    epsilon = ledger.epsilon(1e-5)
    assert ledger.delta(epsilon) == pytest.approx(1e-5, rel=1e-6)
    assert other_way.epsilon(1e-5) == pytest.approx(epsilon, rel=1e-9)
    assert charged(GAUSSIAN).epsilon(1e-5) < epsilon < ledger.epsilon(1e-7)


def test_an_entry_without_noise_makes_epsilon_infinite():
    ledger = charged(GAUSSIAN, {**STEPS, "noise_multiplier": 0.0})
    assert ledger.epsilon(1e-5) == ledger.epsilon_rdp(1e-5) == math.inf and ledger.delta(10.0) == 1.0


def test_renyi_lies_above_and_the_reverse_is_an_error(monkeypatch):
    ledger = charged(GAUSSIAN, STEPS)
    assert ledger.epsilon(1e-5) < ledger.epsilon_rdp(1e-5) < 1.5 * ledger.epsilon(1e-5)
    monkeypatch.setattr(accounting, "epsilon_rdp", lambda events, delta: 0.9 * accounting.epsilon_of(events, delta))
    with pytest.raises(RuntimeError, match="the accounting is wrong"):
        ledger.epsilon_rdp(1e-5)


def test_blocks_of_the_same_entry_grow_its_count_and_nothing_else_does(tmp_path):
    path = tmp_path / "ledger.json"
    ledger = Ledger(path=path)
    for count in (20, 20, 5):
        ledger.charge("training", "gradients", "DP-SGD", {**STEPS, "count": count})
    ledger.charge("training", "gradients", "DP-SGD", {**STEPS, "noise_multiplier": 2.0})
    ledger.charge("training", "gradients", "something else", STEPS)
    assert [entry.event["count"] for entry in ledger.entries] == [45, 50, 50]
    assert Ledger.read(path).entries == ledger.entries
    together = charged({**STEPS, "count": 45})
    assert charged(*[{**STEPS, "count": count} for count in (20, 20, 5)]).epsilon(1e-5) == together.epsilon(1e-5)


def test_a_receipt_is_booked_only_where_its_entry_stands():
    ledger = Ledger()
    receipt = ledger.charge("histograms", "all columns", "noisy counts", GAUSSIAN)
    assert receipt.is_booked and receipt.name == "histograms" and receipt.ledger is ledger
    assert not Receipt(Ledger(), "histograms").is_booked and not Receipt(ledger, "others").is_booked
    assert "Ledger" not in repr(receipt)


def test_a_charge_that_cannot_be_written_is_not_booked(tmp_path):
    ledger = Ledger(path=tmp_path / "absent" / "ledger.json")
    with pytest.raises(UserError, match=r"ledger\.json cannot be written \(No such file or directory\): free space"):
        ledger.charge("histograms", "all columns", "noisy counts", GAUSSIAN, upto=1)
    assert ledger.entries == () and ledger.paid("histograms") == 0


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[1]",
        '{"entries": [], "pa',
        '{"entries": [{"name": "x"}], "paid": {}}',
        '{"entries": [], "paid": 1}',
        '{"entries": [{"name":"x","reads":"","mechanism":"","event":{}}], "paid": {}}',
    ],
)
def test_a_file_that_is_no_ledger_is_refused(tmp_path, content):
    path = tmp_path / "ledger.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"ledger\.json is not a ledger"):
        Ledger.read(path)


def test_the_accountant_is_named_and_why():
    words = "privacy-loss distributions (discretisation 0.0001), confirmed by dp-accounting"
    assert charged(GAUSSIAN, STEPS).accountant == words
    chosen = charged(GAUSSIAN, {"kind": "select", "events": [GAUSSIAN], "mean": 4.0, "shape": 1.0, "count": 1})
    assert "Renyi" in chosen.accountant and "select" in chosen.accountant and "'a release'" in chosen.accountant
    assert chosen.epsilon(1e-5) == chosen.epsilon_rdp(1e-5) > charged(GAUSSIAN).epsilon(1e-5)


def test_a_mechanism_must_report_what_it_was_charged_for():
    check_charged([GAUSSIAN], [dict(GAUSSIAN)])
    for made in ([], [GAUSSIAN, GAUSSIAN], [{**GAUSSIAN, "noise_multiplier": 4.1}]):
        with pytest.raises(RuntimeError, match="was charged, but the mechanism reports"):
            check_charged([GAUSSIAN], made)


EVERY_KIND = [
    GAUSSIAN,
    STEPS,
    {"kind": "laplace", "noise_multiplier": 10.0, "count": 2},
    {"kind": "discrete_gaussian", "noise_multiplier": 5.0, "sensitivity": 3, "count": 1},
    {"kind": "discrete_laplace", "noise_multiplier": 10.0, "sensitivity": 2, "count": 1},
    {"kind": "exponential", "epsilon": 0.05, "count": 3},
    {"kind": "pure", "epsilon": 0.1, "count": 1},
    {"kind": "approximate", "epsilon": 0.02, "delta": 1e-7, "count": 1},
]
RENYI_KINDS = [
    {"kind": "select", "events": [GAUSSIAN, STEPS], "mean": 3.0, "shape": 0.5, "count": 1},
    {"kind": "select", "events": [GAUSSIAN], "mean": 3.0, "shape": "poisson", "count": 1},
    {"kind": "renyi", "order": 6.5, "epsilon": 0.2, "count": 1},
]


@pytest.mark.parametrize("more", [[], RENYI_KINDS[:2], RENYI_KINDS[2:]])
def test_the_printed_code_recomputes_every_kind(more, tmp_path, monkeypatch, capsys):
    ledger = charged(*EVERY_KIND, *more)
    report = {"private": True, "epsilon": ledger.epsilon(1e-5), "delta": 1e-5, "ledger": ledger.to_list()}
    (tmp_path / "privacy_report.json").write_text(json.dumps(report))
    monkeypatch.chdir(tmp_path)
    text = privacy_markdown(report)
    exec(compile(text.partition("```python\n")[2].partition("```")[0], "privacy_report.md", "exec"), {})
    assert float(capsys.readouterr().out) == pytest.approx(report["epsilon"], rel=1e-3)
    assert ("cross-check" in text) == (not more)


def test_every_kind_has_words_for_the_report():
    for event in [*EVERY_KIND, *RENYI_KINDS]:
        words = guarantee.mechanism_words({"event": event})
        assert words and words != event["kind"].replace("_", " ")
        assert "{" not in guarantee.noise_words(event)
    ledger = charged(*EVERY_KIND)
    assert ledger.epsilon(1e-5) < ledger.epsilon_rdp(1e-5)


def test_what_an_origin_has_paid_is_not_charged_to_it_again(tmp_path):
    path = tmp_path / "ledger.json"

    def charge(ledger, count, upto):
        event = {"kind": "gaussian", "noise_multiplier": 4.0, "count": count} if count else None
        assert ledger.charge("training", "gradients", "noisy sums", event, upto=upto).is_booked
        return [sum(entry.event["count"] for entry in part.entries) for part in (ledger, Ledger.read(path))]

    first = Ledger(path=path).charged_by("first")
    assert charge(first, 3, 3) == [3, 3] and charge(first, 3, 3) == [3, 3] and charge(first, 2, 2) == [3, 3]
    assert charge(first, 2, 5) == [5, 5] and first.paid("training") == 5
    again = Ledger.read(path).charged_by("first")  # as after a crash
    assert charge(again, 5, 5) == [5, 5] and charge(again, None, 7) == [5, 5] and again.paid("training") == 7
    other = Ledger.read(path).charged_by("second")
    assert other.paid("training") == 0 and other.paid("training", "first") == 7 and other.has_paid("first")
    assert charge(other, 4, 4) == [9, 9]
    assert charge(Ledger.read(path).charged_by("first"), 7, 7) == [9, 9]
    unnamed = Ledger.read(path)
    for total in (10, 11):  # without a number of draws, everything is booked
        unnamed.charge("training", "gradients", "noisy sums", {"kind": "gaussian", "noise_multiplier": 4.0, "count": 1})
        assert unnamed.entries[0].event["count"] == total


def test_a_ledger_that_lags_behind_is_seen():
    def ledger(*counts):
        return Ledger(
            Entry(f"entry {noise}", "all", "counts", {"kind": "gaussian", "noise_multiplier": noise, "count": count})
            for noise, count in enumerate(counts, start=1)
        )

    assert ledger(2, 3).covers(ledger(2, 3)) and ledger(2, 3).covers(ledger(1)) and ledger(2).covers(Ledger())
    assert not ledger(2).covers(ledger(2, 1)) and not ledger(2, 3).covers(ledger(3))


def test_losses_below_the_grid_are_no_contradiction_between_accountants():
    """Each is rounded up to a grid point, where the Renyi accountant adds them up as they are."""
    ledger = Ledger([Entry("choices", "all", "many", {"kind": "pure", "epsilon": 1e-9, "count": 50})])
    assert ledger.epsilon_rdp(1e-6) < ledger.epsilon(1e-6) <= 50 * accounting.FINE * (1 + 1e-6)
