"""Shared nouns: what is public about a table, images or texts, what records are, what a generator is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from privsyn_jax.views import schema_html

if TYPE_CHECKING:
    from privsyn_jax.privacy.guard import Private

Params = Mapping[str, Any]  # {"private": pytree trained on records, "public": pytree from released values}

NUMERIC_KINDS = ("numeric", "integer", "datetime")
CATEGORICAL_KINDS = ("categorical", "ordinal", "boolean")
COLUMN_KINDS = (*NUMERIC_KINDS, *CATEGORICAL_KINDS, "id")


class UserError(ValueError):
    """A mistake in the input: the message is one sentence that names the thing and the remedy."""


@dataclasses.dataclass(frozen=True)
class Column:
    """The public facts about one column.

    Attributes:
      name: as in the header.
      kind: one of COLUMN_KINDS. An `id` is regenerated, never learned.
      lower: smallest value (numeric, integer: a number; datetime: ISO text); public.
      upper: largest value, inclusive; public.
      categories: every value (categorical; ordinal: in order; boolean: (false, true) as written in
        the file, default (False, True)). None for a categorical column means unknown: it must be bought.
      nullable: whether a value may be missing.
      point_masses: numeric values known to be taken exactly by many records (0, a top code).
      edges: public bin edges, increasing, from lower to upper; None lets the transform choose.
      datetime_format: strftime format in files; None means ISO 8601.
      groups: (name, categories) of every group of categories, such as the chapters of a classification; public.
      declared_public: names of facts above that were taken from the rows and that the user declared public.
    """

    name: str
    kind: str
    lower: float | int | str | None = None
    upper: float | int | str | None = None
    categories: tuple[Any, ...] | None = None
    nullable: bool = False
    point_masses: tuple[float, ...] = ()
    edges: tuple[float, ...] | None = None
    datetime_format: str | None = None
    declared_public: tuple[str, ...] = ()
    groups: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    @property
    def values(self) -> tuple[Any, ...]:
        """The values of a categorical kind, as they stand in a frame; empty if unknown or numeric."""
        return (False, True) if self.kind == "boolean" else self.categories or ()


@dataclasses.dataclass(frozen=True)
class Schema:
    """Everything public about a table; what is not here is unknown and must be measured at a cost.

    Attributes:
      columns: in file order.
      num_records: a public figure near the number of training rows. The default number of synthetic rows and, without
        a unit_column, sampling rate and default delta are computed from it; the guarantee does not depend on its being
        exact.
      target: column predicted in the utility evaluation, or None.
      sensitive: columns with protected attributes.
      privacy_unit: what is protected as one ("record", "person", ...), quoted in the report.
      declared_public: table-level facts taken from the rows and declared public by the user.
      unit_column: a column of kind id whose equal values belong to one unit, which is added or removed with all its
        rows; None where every row is a unit by itself.
      max_records_per_unit: rows of one unit that are read, at most; public. None without a unit_column.
      num_units: a public figure near the number of training units, from which sampling rate and default delta are
        computed. None without a unit_column.
    """

    columns: tuple[Column, ...]
    num_records: int
    target: str | None = None
    sensitive: tuple[str, ...] = ()
    privacy_unit: str = "record"
    declared_public: tuple[str, ...] = ()
    unit_column: str | None = None
    max_records_per_unit: int | None = None
    num_units: int | None = None

    @property
    def rows_per_unit(self) -> int:
        """The most rows that a unit adds to anything."""
        return self.max_records_per_unit or 1

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def modelled(self) -> tuple[Column, ...]:
        """The columns that a generator learns: all but ids."""
        return tuple(column for column in self.columns if column.kind != "id")

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def _repr_html_(self) -> str:
        return schema_html.of_table(self)


@dataclasses.dataclass(frozen=True)
class ImageSchema:
    """Everything public about a set of labelled images of one size.

    Attributes:
      shape: (height, width, channels) of every image; 1 channel is grey, 3 are red, green, blue.
      classes: names of the labels 0, 1, ...
      num_records: a public figure near the number of training images, see `Schema`.
      privacy_unit: what one image stands for, quoted in the report.
      declared_public: facts above that were taken from the images and that the user declared public.
    """

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    num_records: int
    privacy_unit: str = "image"
    declared_public: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        return schema_html.of_images(self)


class Images(NamedTuple):
    """Labelled images, or one of them without the leading axis.

    Attributes:
      pixels: uint8 [n, height, width, channels].
      labels: int32 [n], from 0 to below the number of classes.
    """

    pixels: Any
    labels: Any


@dataclasses.dataclass(frozen=True)
class TextSchema:
    """Everything public about a set of texts, labelled or not.

    Attributes:
      classes: names of the labels 0, 1, ...; none for texts without labels.
      num_records: a public figure near the number of training texts (of units, where `unit` is given), see `Schema`.
      text: name of the column or key that holds the text, in files read and written.
      label: name of the column or key that holds the class.
      unit: name of the column or key that says whom a text belongs to, an author for instance: one text of each is
        kept, chosen by a public rule. "" means that every text is a unit by itself.
      privacy_unit: what one record stands for, quoted in the report.
      declared_public: facts above that were taken from the texts and that the user declared public.
    """

    classes: tuple[str, ...]
    num_records: int
    text: str = "text"
    label: str = "label"
    unit: str = ""
    privacy_unit: str = "text"
    declared_public: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        return schema_html.of_texts(self)


AnySchema = Schema | ImageSchema | TextSchema


def num_units_of(schema: AnySchema) -> int:
    """The public figure for the number of units: of what is drawn, clipped and protected as one."""
    return (schema.num_units if isinstance(schema, Schema) else None) or schema.num_records


class UnitRows(NamedTuple):
    """Encoded rows of units that may own several, or of one unit without the leading axis.

    Attributes:
      codes: int32 [n, k, d].
      is_row: bool [n, k]; False for filling, whose codes are 0.
    """

    codes: Any
    is_row: Any


class Texts(NamedTuple):
    """Texts as they are read and written.

    Attributes:
      texts: object [n] of str, each encodable as UTF-8 and not empty.
      labels: int32 [n], from 0 to below the number of classes; all 0 without classes.
    """

    texts: Any
    labels: Any


class Tokens(NamedTuple):
    """Encoded texts, or one of them without the leading axis.

    Attributes:
      ids: int32 [n, length]: the tokens of a text, then `tokens.END` where it ended within the length, then PAD (0).
      labels: int32 [n].
    """

    ids: Any
    labels: Any


class Records(NamedTuple):
    """Private records as loaded, a DataFrame, Images or Texts: conforming to `schema`, split by a public rule.

    Canonical dtypes of a table by kind: numeric float64 (NaN if missing); integer int64 (Int64 if nullable);
    datetime datetime64[us] (NaT if missing); categorical and ordinal object, holding the schema's
    category values (None if missing); boolean bool (boolean if nullable); id as read.
    """

    schema: AnySchema
    train: Private[Any]
    test: Private[Any]
    content_hash: str  # sha256 of the source's content, for refusing a changed file
    clamped: Private[dict[str, int]]  # values per column that lay outside the public bounds; else none


class Stage(NamedTuple):
    """One noisy sum over all records, and what is made of it.

    Attributes:
      name: of the release, as the ledger books it.
      share: of what all stages together may spend; not used of those after training, whose names the plan knows.
      num_groups: groups that a record can be in.
      embed: (params, example) -> (group, float vector [m]); only the vector's part of L2 norm 1 is used.
      absorb: (params, noisy_sum float64 [num_groups, m], stddev of its noise, key) -> params.
    """

    name: str
    share: float
    num_groups: int
    embed: Callable[..., Any]
    absorb: Callable[..., Params]


class CountStage(NamedTuple):
    """A noisy sum of sparse vectors over all records, and what is made of it.

    Attributes:
      name: of the release, as the ledger books it.
      share: of what all stages together may spend.
      size: of the vectors.
      count: (params, encoded records) -> `privacy.release.Counts`; only each vector's part of L2 norm 1 is used.
      absorb: (params, noisy_sum float64 [size], stddev of its noise, key) -> params.
    """

    name: str
    share: float
    size: int
    count: Callable[..., Any]
    absorb: Callable[..., Params]


class Forbidden(NamedTuple):
    """Codes that no synthetic record of a table may have.

    Attributes:
      codes: column index -> bool [k].
      pairs: (i, j) with i < j -> bool [k_i, k_j].
    """

    codes: dict[int, Any]
    pairs: dict[tuple[int, int], Any]


class Teaching(NamedTuple):
    """How a generator learns from the votes of teachers, see `training.pate`. A teacher's parameters are
    params["private"] of a generator, `private_loss` is its loss, and `public_loss` that of the generator.

    Attributes:
      num_teachers: public.
      teacher_steps: of every teacher before each vote.
      student_steps: of the student after each vote.
      votes_are_relative: whether a teacher votes for rows that it scores above its own median over the rows of the
        vote, or else above 0.
      draw: (params["public"], key) -> one generated row, as teachers and student see it.
      score: (params["private"], row) -> scalar, higher for a row that the teacher takes for real.
      student_loss: (params["public"], row, noisy share of teachers that take it for real) -> scalar; its gradient is 0
        for all but the student, as that of `public_loss` is for the student.
    """

    num_teachers: int
    teacher_steps: int
    student_steps: int
    votes_are_relative: bool
    draw: Callable[..., Any]
    score: Callable[..., Any]
    student_loss: Callable[..., Any]


class Generator(NamedTuple):
    """Pure functions over a parameter pytree {"private": ..., "public": ...}.

    `private_loss` and the `embed` or `count` of stages, before and `after` training, are the only functions that ever
    receive private records before noise; no vector or scalar of theirs depends on two records.
    `negative_log_likelihood` sees real records for the evaluation. The others have no argument through which a record
    could come, so they are post-processing.

    An encoded example of a table is int32 codes [d]; of images, `Images` of one: uint8 pixels [height, width,
    channels] and a scalar int32 label; of texts, `Tokens` of one: int32 ids [length] and a scalar int32 label. Where
    units own several rows, what `private_loss` takes is `UnitRows` of one, see `models.units`.

    Attributes:
      init: key -> params.
      private_loss: (params, example, key) -> scalar, for one encoded example; None for a one-shot generator.
      public_loss: (params, key) -> scalar, for one draw; trains params["public"], as the generator of a GAN, whose
        critic is params["private"]; or None.
      calibrate: (params, bought, key) -> params, moves params["public"] so that the generator's own marginals agree
        with purchased ones, before training and after it; after it only, where `stages` bought them; or None.
      sample: (params, key, num_samples, conditions) -> encoded examples [num_samples, ...]; conditions
        maps a column index (images, texts: 0, the label) to the code that it is set to; see `exact_conditions`.
      exact_conditions: indices of conditioned columns -> those among them that `sample` fixes exactly.
      stages: noisy sums over all records, one after the other, that a one-shot generator learns from, or that a
        network for texts starts from; else none.
      advance: (params, progress from 0 to 1) -> params, before every step of training: what follows a schedule, such as
        the weight of a term of the loss, moves in params["public"]; or None.
      negative_log_likelihood: (params, example, key) -> nats of one example, or an upper bound on average; or None.
      project: params["private"] -> the nearest ones that are allowed, after every update; or None.
      forbid: (params, Forbidden) -> params that avoid these codes, as far as a record can; or None.
      after: noisy sums over all records that are bought when training is done, of those that the plan has a budget for;
        what they are of may depend on the trained parameters, which are released. Calibration follows.
      teaching: of a generator that learns from the votes of teachers, not by DP-SGD; or None.
    """

    init: Callable[..., Params]
    private_loss: Callable[..., Any] | None
    public_loss: Callable[..., Any] | None
    calibrate: Callable[..., Params] | None
    sample: Callable[..., Any]
    exact_conditions: Callable[..., tuple[int, ...]]
    stages: tuple[Stage | CountStage, ...] = ()
    advance: Callable[..., Params] | None = None
    negative_log_likelihood: Callable[..., Any] | None = None
    project: Callable[..., Params] | None = None
    forbid: Callable[..., Params] | None = None
    after: tuple[Stage, ...] = ()
    teaching: Teaching | None = None
