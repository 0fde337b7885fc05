"""Autoregressive generator over table columns: p(record) = prod_j p(code_j | codes of earlier columns).

The logits of column j are the sum of
  a bias and one table per earlier column ("public": set from purchased marginals, see `calibrate`), and
  a causal network over the earlier columns ("private": trained by DP-SGD).
The network is a transformer over columns, or a masked MLP (Germain et al. 2015, MADE).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from privsyn_jax.models.blocks import CausalBlock, MaskedDense
from privsyn_jax.models.stratified import dense_ranks, inverted, stratified
from privsyn_jax.types import Generator

_NEVER = -1e9  # logit of a code that is forbidden
_ELSEWHERE = -1e30  # logit of a code of another column: below any sum of forbidden ones
_BLOCK = 256  # records per vectorised forward pass: small enough for the cache
_MOST_BLOCKS = 128  # drawn together, the rows among which numbers are stratified
_MAX_CODES = 10_000  # the table of all pairs of codes is square in it: 400 MB
_TILT_STEPS = 100
_TILT_MOMENTUM = 0.5
_LARGEST_STEP = 2.0  # of all features of a record together, in its logits
_SURE = 2.0  # standard deviations below a noisy count, which it certainly is
_SMALLEST_SHARE = 1e-9


class Layout(NamedTuple):
    """Where each column's codes lie in one flat axis of all S codes; columns in model order."""

    order: tuple[int, ...]  # model position -> column index
    cardinalities: tuple[int, ...]  # by model position

    @property
    def num_columns(self) -> int:
        return len(self.order)

    @property
    def num_codes(self) -> int:
        return sum(self.cardinalities)

    @property
    def offsets(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.cardinalities)[:-1]]).astype(np.int32)

    @property
    def column_of_code(self) -> np.ndarray:
        return np.repeat(np.arange(self.num_columns), self.cardinalities)

    @property
    def own(self) -> np.ndarray:
        """Bool [D, S]: whether a code belongs to the column."""
        return self.column_of_code[None, :] == np.arange(self.num_columns)[:, None]


class TransformerTrunk(nn.Module):
    """Flat codes [D] -> logits [S]; those of column j depend on columns before j only."""

    layout: Layout
    width: int
    num_layers: int
    num_heads: int
    mlp_ratio: int

    @nn.compact
    def __call__(self, flat_codes):
        num_columns, num_codes = self.layout.num_columns, self.layout.num_codes
        embedding = self.param("embedding", nn.initializers.normal(0.5), (num_codes, self.width))
        position = self.param("position", nn.initializers.normal(0.5), (num_columns, self.width))
        embedded = embedding[flat_codes]
        hidden = jnp.concatenate([jnp.zeros((1, self.width)), embedded[:-1]]) + position
        for _ in range(self.num_layers):
            hidden = CausalBlock(self.num_heads, self.mlp_ratio * self.width)(hidden)
        hidden = nn.RMSNorm()(hidden)
        logits = nn.Dense(num_codes, kernel_init=nn.initializers.zeros, name="logits")(hidden)
        return jnp.where(self.layout.own, logits, 0.0).sum(axis=0)


class MaskedTrunk(nn.Module):
    """MADE: flat codes [D] -> logits [S]; hidden units carry the number of columns that they may see."""

    layout: Layout
    width: int
    num_layers: int

    @nn.compact
    def __call__(self, flat_codes):
        column_of_code = self.layout.column_of_code
        hidden = jnp.zeros(self.layout.num_codes).at[flat_codes].set(1.0)
        sees = column_of_code + 1  # an input unit knows columns < sees
        hidden_sees = 1 + np.arange(self.width) % max(1, self.layout.num_columns - 1)
        for _ in range(self.num_layers):
            hidden = nn.gelu(MaskedDense(jnp.asarray(sees[:, None] <= hidden_sees[None, :], jnp.float32))(hidden))
            sees = hidden_sees
        final = jnp.asarray(sees[:, None] <= column_of_code[None, :], jnp.float32)
        return MaskedDense(final, kernel_init=nn.initializers.zeros)(hidden)


def make(
    *,
    cardinalities: tuple[int, ...],
    column_order: tuple[int, ...] = (),
    variant: str = "transformer",
    width: int = 32,
    num_layers: int = 2,
    num_heads: int = 4,
    mlp_ratio: int = 2,
    prior_strength: float = 12.0,
    num_calibration_rows: int = 16384,
) -> Generator:
    """Generator of int32 codes [d].

    Args:
      cardinalities: number of codes of each column.
      column_order: permutation of the columns; the first is drawn from its marginal. Default: as given.
      variant: "transformer" or "masked_mlp".
      width, num_layers, num_heads, mlp_ratio: size of the network.
      prior_strength: how much `calibrate` trusts the network against purchased marginals: precision of the
        normal prior on every table entry, whose mean is what the network has learned.
      num_calibration_rows: rows that `calibrate` draws to know the generator's own marginals.
    """
    order = tuple(column_order) or tuple(range(len(cardinalities)))
    if sorted(order) != list(range(len(cardinalities))):
        raise ValueError(f"column_order {order} must be a permutation of the {len(cardinalities)} columns")
    layout = Layout(order, tuple(cardinalities[column] for column in order))
    if layout.num_codes > _MAX_CODES:
        largest = max(range(len(cardinalities)), key=lambda column: cardinalities[column])
        raise ValueError(
            f"the columns have {layout.num_codes} codes in all, more than {_MAX_CODES} (column {largest} alone has "
            f"{cardinalities[largest]}): merge categories, lower transform.num_bins, or leave a column out"
        )
    sizes = {"width": width, "num_layers": num_layers, "num_heads": num_heads, "mlp_ratio": mlp_ratio}
    for name, value in {**sizes, "num_calibration_rows": num_calibration_rows}.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} {value!r} must be a whole number, at least 1")
    if not prior_strength > 0:
        raise ValueError(f"prior_strength {prior_strength} must be above 0")
    if variant == "transformer":
        if width % num_heads:
            raise ValueError(f"width {width} must be a multiple of num_heads {num_heads}")
        trunk = TransformerTrunk(layout, width, num_layers, num_heads, mlp_ratio)
    elif variant == "masked_mlp":
        trunk = MaskedTrunk(layout, width, num_layers)
    else:
        raise ValueError(f"variant {variant!r} must be 'transformer' or 'masked_mlp'")

    init_trunk = jax.jit(trunk.init)

    def init(key):
        num_codes = layout.num_codes
        private = init_trunk(key, jnp.zeros(layout.num_columns, jnp.int32))["params"]
        return {
            "private": private,
            "public": {"bias": jnp.zeros(num_codes), "tables": jnp.zeros((num_codes, num_codes))},
        }

    logits = functools.partial(_logits, trunk, layout)
    draw_rows = jax.jit(functools.partial(_sample_rows, logits, layout), static_argnums=3)

    def private_loss(params, example, key):
        del key
        flat_codes = example[np.array(order)] + layout.offsets
        log_probs = jax.nn.log_softmax(jnp.where(layout.own, logits(params, flat_codes)[None], _NEVER), axis=-1)
        return -jnp.take_along_axis(log_probs, flat_codes[:, None], axis=1).sum()

    return Generator(
        init=init,
        private_loss=private_loss,
        public_loss=None,
        calibrate=functools.partial(
            _calibrate,
            jax.jit(functools.partial(_scores, logits, layout)),
            layout,
            prior_strength=prior_strength,
            num_rows=num_calibration_rows,
        ),
        sample=functools.partial(_sample, draw_rows, layout),
        exact_conditions=functools.partial(_exact_conditions, layout),
        forbid=functools.partial(_forbid, layout),
    )


def _logits(trunk, layout, params, flat_codes):
    """Logits [S] of one record. A table's rows act only on later columns, so the sum stays causal."""
    public = params["public"]
    return (
        public["bias"]
        + public["tables"][flat_codes].sum(axis=0)
        + trunk.apply({"params": params["private"]}, flat_codes)
    )


def _exact_conditions(layout, columns):
    """The conditioned columns that no earlier free column precedes: fixing them first is exact."""
    exact = []
    for column in layout.order:
        if column not in columns:
            break
        exact.append(column)
    return tuple(exact)


def _forbid(layout, params, forbidden):
    """Parameters under which a column never takes a forbidden code, nor one that an earlier column's code forbids."""
    bias, tables = (np.array(params["public"][name]) for name in ("bias", "tables"))
    place = {
        column: slice(o, o + k) for column, o, k in zip(layout.order, layout.offsets, layout.cardinalities, strict=True)
    }
    for column, is_out in forbidden.codes.items():
        bias[place[column]][is_out] = _NEVER
    for (i, j), is_out in forbidden.pairs.items():
        first, second, is_out = (i, j, is_out) if place[i].start < place[j].start else (j, i, is_out.T)
        tables[place[first], place[second]][is_out] = _NEVER
    return {**params, "public": {"bias": jnp.asarray(bias), "tables": jnp.asarray(tables)}}


def _column_logits(logits, layout, params, flat_codes, position):
    """Logits [n, S] of one column (traced position) for n records, impossible elsewhere."""
    own = jnp.asarray(layout.own)[position]
    return jnp.where(own[None], jax.vmap(logits, in_axes=(None, 0))(params, flat_codes), _ELSEWHERE)


def _sample(draw_rows, layout, params, key, num_samples, conditions=None):
    """int32 [num_samples, d], drawn from the softmax column by column; few shapes are compiled, whatever the number."""
    fixed = np.full(layout.num_columns, -1, np.int32)
    for column, code in (conditions or {}).items():
        position = layout.order.index(column)
        fixed[position] = code + layout.offsets[position]
    params, drawn, num_blocks = jax.device_put(params), [], -(-num_samples // _BLOCK)
    while num_blocks > 0:
        key, own = jax.random.split(key)
        together = min(_MOST_BLOCKS, 2 ** int(np.ceil(np.log2(num_blocks))))
        drawn.append(draw_rows(params, own, fixed, together))
        num_blocks -= together
    codes = np.concatenate(jax.device_get(drawn))[:num_samples] - layout.offsets
    return codes[:, np.argsort(layout.order)]


def _sample_rows(logits, layout, params, key, fixed, num_blocks):
    """Flat codes [num_blocks * _BLOCK, D]; `fixed` [D] holds a flat code to set, or -1 to draw.

    Rows are drawn by inversion, from uniform numbers that are stratified among rows whose earlier columns are alike:
    each row has the distribution that independent draws would give it, and counts in all of them scatter less.
    """
    num_rows = num_blocks * _BLOCK

    def draw_column(position, state):
        flat_codes, likeness = state
        uniform = stratified(jax.random.fold_in(key, position), jnp.argsort(likeness, stable=True))

        def draw_block(block):
            codes, numbers = block
            return inverted(_column_logits(logits, layout, params, codes, position), numbers)

        blocks = flat_codes.reshape(num_blocks, _BLOCK, -1), uniform.reshape(num_blocks, _BLOCK)
        drawn = jax.lax.map(draw_block, blocks).reshape(num_rows)
        drawn = jnp.where(fixed[position] >= 0, fixed[position], drawn).astype(jnp.int32)
        own = drawn - jnp.asarray(layout.offsets)[position]
        return flat_codes.at[:, position].set(drawn), dense_ranks(likeness * max(layout.cardinalities) + own)

    start = jnp.broadcast_to(jnp.asarray(layout.offsets), (num_rows, layout.num_columns))
    return jax.lax.fori_loop(0, layout.num_columns, draw_column, (start, jnp.zeros(num_rows, jnp.int32)))[0]


def _scores(logits, layout, params, flat_codes, position):
    """`_column_logits` of many records, block by block."""
    blocks = flat_codes.reshape(-1, _BLOCK, layout.num_columns)
    scores = jax.lax.map(lambda block: _column_logits(logits, layout, params, block, position), blocks)
    return scores.reshape(len(flat_codes), -1)


def _calibrate(score, layout, params, marginals, key, *, prior_strength, num_rows):
    """Moves bias and tables so that the generator's marginals meet the purchased ones, up to their noise.

    Column by column in model order: given drawn earlier columns, the tilt of this column's logits is the
    maximum-entropy change of the conditional whose expected marginals agree with the noisy ones, up to what a
    normal prior on the tilt lets noise explain: residual = prior_strength * noise variance / count * tilt, since a tilt
    moves the expected count of a cell by as many records as the cell holds.

    Source: Chen and Rosenfeld 2000, "A Survey of Smoothing Techniques for ME Models", section III.
    """
    total = marginals.total
    num_rows = -(-num_rows // _BLOCK) * _BLOCK
    flat_codes = jnp.broadcast_to(jnp.asarray(layout.offsets), (num_rows, layout.num_columns))
    bias, tables = (np.array(params["public"][name]) for name in ("bias", "tables"))
    for position, (offset, size) in enumerate(zip(layout.offsets, layout.cardinalities, strict=True)):
        target, variance, rows = _targets(layout, marginals, position)
        tilt, flat_codes = _tilt_column(
            score(params, flat_codes, position),
            flat_codes,
            position,
            offset,
            size,
            _padded(layout.column_of_code[rows], 0),
            _padded(rows, -1),
            _padded(target / total, 0.0, also_first=1),
            _padded(np.sqrt(variance + 1.0) / total, 1.0, also_first=1),
            prior_strength,
            jax.random.fold_in(key, position),
        )
        own = slice(offset, offset + size)
        bias[own] += tilt[0, :size]
        tables[rows, own] += tilt[1 : 1 + len(rows), :size]
    return {**params, "public": {"bias": jnp.asarray(bias), "tables": jnp.asarray(tables)}}


def _padded(array, value, *, also_first=0):
    """Array grown to powers of two (plus `also_first` rows), so that few shapes are compiled."""
    rows = also_first + 2 ** max(4, int(np.ceil(np.log2(max(1, len(array) - also_first)))))
    sizes = [rows, *(2 ** max(2, int(np.ceil(np.log2(size)))) for size in array.shape[1:])]
    return np.pad(array, [(0, new - old) for new, old in zip(sizes, array.shape, strict=True)], constant_values=value)


@jax.jit
def _tilt_column(scores, flat_codes, position, offset, size, parents, rows, target, stddev, prior_strength, key):
    """Tilts one column to its targets and draws it.

    The tilt [1 + f, k] solves mean_i features_i (x) softmax(base_i + features_i tilt) = target - slack * tilt, where
    slack = prior_strength * stddev^2 / share, and the share of a cell is taken to be the generator's own or, if that
    is more, what the target certainly shows. That is the stationary point of a strictly convex problem, reached by
    damped Newton steps on its diagonal in the manner of generalised iterative scaling (Darroch and Ratcliff 1972): an
    example activates at most `num_active` features, so steps divided by that number do not overshoot, and where a cell
    is far too rare, whose step is long, no record's logits move by more than `_LARGEST_STEP` at once.

    Args:
      scores: [n, S] logits of the column; flat_codes: int32 [n, D] earlier columns drawn.
      offset, size: where the column's codes start, and how many there are (k is at least that).
      parents, rows: int [f], the earlier column and the flat code that each feature tests; -1 for none.
      target, stddev: [1 + f, k], in shares of the records; feature 0 is always on.

    Returns:
      the tilt; flat_codes with the column drawn from its tilted logits.
    """
    num_rows, width = flat_codes.shape[0], target.shape[1]
    own = jnp.minimum(offset + jnp.arange(width), scores.shape[1] - 1)
    base = jnp.where(jnp.arange(width) < size, scores[:, own], _NEVER)
    tests = (flat_codes[:, parents] == rows[None]).astype(jnp.float32)
    features = jnp.concatenate([jnp.ones((num_rows, 1)), tests], axis=1)
    num_active = features.sum(axis=1).max()
    share = jnp.maximum(features.T @ jax.nn.softmax(base, axis=-1) / num_rows, target - _SURE * stddev)
    slack = prior_strength * stddev**2 / jnp.maximum(share, _SMALLEST_SHARE)

    def improve(_, state):
        tilt, velocity = state
        expected = features.T @ jax.nn.softmax(base + features @ tilt, axis=-1) / num_rows
        newton = (target - expected - slack * tilt) / (expected * num_active + slack)
        velocity = _TILT_MOMENTUM * velocity + jnp.clip(newton, -_LARGEST_STEP / num_active, _LARGEST_STEP / num_active)
        return tilt + velocity, velocity

    start = jnp.zeros_like(target)
    tilt, _ = jax.lax.fori_loop(0, _TILT_STEPS, improve, (start, start))
    drawn = jax.random.categorical(key, base + features @ tilt, axis=-1)
    return tilt, flat_codes.at[:, position].set((drawn + offset).astype(jnp.int32))


def _targets(layout, marginals, position):
    """Purchased marginals of one column with earlier ones: counts and noise variances [1 + f, k], flat codes [f].

    Row 0 is the one-way marginal; row 1 + r the counts together with flat code r of an earlier column.
    """
    column = layout.order[position]
    position_of = {column: position for position, column in enumerate(layout.order)}
    counts = [marginals.one_way[column][None]]
    variances = [np.square(marginals.one_way_stddev[column])[None]]
    rows = []
    for (i, j), (table, stddev) in marginals.tables.items():
        if column not in (i, j):
            continue
        other, table = (i, table) if column == j else (j, table.T)
        if position_of[other] < position:
            counts.append(table)
            variances.append(np.full(table.shape, stddev**2))
            rows.append(layout.offsets[position_of[other]] + np.arange(len(table)))
    flat = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    return np.concatenate(counts).astype(np.float32), np.concatenate(variances).astype(np.float32), flat
