"""What differs between kinds of records, so that the path from records to report need not know which they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Modality(NamedTuple):
    """Tables, images, or texts.

    Attributes:
      name: in messages, plural.
      generators: names of the generators that make such records.
      check: (schema, settings) -> None; raises UserError for settings that would stop a run later. Reads public facts.
      buy: (records, schema, plan, settings, ledger, noise) -> Purchases: all that is bought before training.
      build_generator: (settings, transform) -> Generator.
      loss_bound: transform -> public bound of a record's loss, or None.
      warm_up: (generator, settings, purchases, announce) -> function of params, see `dp_sgd.train`; or None.
      random_records: (settings, schema, rng) -> encoded records drawn evenly, as many as the public num_records.
      synthesize: (generator, params, transform, *, num_samples, conditions, constraints, key) -> a tuple with
        `records`, `exact` and `rejected_on` at least.
      finish: (records, schema, dtypes) -> the form in which `Run.sample` hands them out.
      write: (records, schema, folder) -> None, writes the synthetic records to be released.
      released_files: what each file of a release is -> its name.
      read_synthetic: (path, schema) -> (synthetic records made by whomever, sentences on what is odd about them).
      evaluate: (run, train, test, synthetic, schema, settings, folder, announce) -> None, writes metrics.json and what
        the page needs into a folder that is private; run is a fitted.Run, or None for records made elsewhere.
      attacks: by name, those that need records only.
      attack: (schema, train, test, synthetic, *, seed, names, announce) -> attacks.AttackReport.
      render: (common fields of the page, train, test, synthetic, schema, the folder of `evaluate`) -> HTML.
      metrics: (run, schema, train, test, synthetic, settings) -> rows of metrics.json.
      schema_to_dict: schema -> plain JSON.
      public_facts: schema -> sentences, first of all that the guarantee takes as known.
    """

    name: str
    generators: Mapping[str, Callable[..., Any]]
    check: Callable[..., None]
    buy: Callable[..., Any]
    build_generator: Callable[..., Any]
    loss_bound: Callable[..., float | None]
    warm_up: Callable[..., Any]
    random_records: Callable[..., Any]
    synthesize: Callable[..., Any]
    finish: Callable[..., Any]
    write: Callable[..., None]
    released_files: Mapping[str, str]
    read_synthetic: Callable[..., tuple[Any, list[str]]]
    evaluate: Callable[..., None]
    attacks: Mapping[str, Callable[..., Any]]
    attack: Callable[..., Any]
    render: Callable[..., str]
    metrics: Callable[..., list[dict[str, Any]]]
    schema_to_dict: Callable[..., dict[str, Any]]
    public_facts: Callable[..., list[str]]
