"""Ghost norms and sums against vmap, one kind of layer or one kind of expression at a time."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ghost_oracle import BATCH, Case, check, draw, methods, of_module
from jax import lax

from privsyn_jax.privacy import ghost

TOKENS = np.array([[3, 1, 3, 0, 3], [2, 2, 2, 2, 2], [6, 5, 4, 0, 1]], np.int32)  # of 7, repeated
STRAY = np.array([[3, -1, 7, 3, 100], [-7, -8, 0, 6, 6], [2, 2, -100, 1, 0]], np.int32)  # out of range, negative
MASK = (np.arange(20)[:, None] % 3 <= np.arange(20) % 3).astype(np.float32)


def plain(function, private, examples, public=None, **more) -> Case:
    """A loss that needs no key and reads p.private and p.public as its first two arguments."""
    return Case(
        lambda params, x, key: function(params["private"], params["public"], x), private, examples, public, **more
    )


def on_weights(function, private, shape=(4, 5), **more) -> Case:
    """function(private, example), summed after a sine."""
    return plain(lambda w, public, x: jnp.sum(jnp.sin(function(w, x))), private, draw(BATCH, *shape), **more)


def conv(x, kernel, strides=(1, 1), padding="SAME", layout=("NHWC", "HWIO", "NHWC"), **more):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=layout, **more)


def lookup(mode, tokens):
    def loss(table, _, x):
        return jnp.sum(jnp.sin(jnp.nan_to_num(jnp.take(table, x["tokens"], axis=0, mode=mode)) + x["shift"]))

    return plain(loss, draw(7, 4), {"tokens": tokens, "shift": draw(BATCH, 5, 4)})


LAYERS = {
    "dense": (nn.Dense(3), (4,)),
    "dense, positions": (nn.Dense(3), (6, 4)),
    "dense, no bias": (nn.Dense(3, use_bias=False), (2, 3, 4)),
    "dense, several axes": (nn.DenseGeneral((3, 2), axis=(-1, -2)), (5, 6, 4)),
    "dense, axes in disorder": (nn.DenseGeneral((3, 2), axis=(-3, -1)), (5, 6, 4)),
    "dense, batch dims": (nn.DenseGeneral(3, axis=-1, batch_dims=(0,)), (5, 6, 4)),
    "einsum": (nn.Einsum((3, 5, 2, 4), "abi,bija->jab"), (4, 3, 5)),
    "conv 1-d": (nn.Conv(3, (3,)), (6, 2)),
    "conv 2-d": (nn.Conv(3, (3, 3)), (6, 5, 2)),
    "conv 3-d": (nn.Conv(2, (2, 2, 2)), (3, 4, 3, 2)),
    "conv, strided": (nn.Conv(4, (4, 4), strides=2), (8, 7, 2)),
    "conv, valid": (nn.Conv(4, (3, 2), strides=(2, 1), padding="VALID"), (6, 5, 2)),
    "conv, circular": (nn.Conv(3, (3, 3), padding="CIRCULAR"), (5, 5, 2)),
    "conv, causal": (nn.Conv(3, (3,), padding="CAUSAL"), (6, 2)),
    "conv, dilated": (nn.Conv(4, (3, 3), kernel_dilation=2), (7, 7, 2)),
    "conv, dilated input": (nn.Conv(4, (3, 3), input_dilation=2, padding=[(2, 1), (0, 2)]), (4, 4, 2)),
    "conv, grouped": (nn.Conv(6, (3, 3), feature_group_count=2), (5, 5, 4)),
    "conv, depthwise": (nn.Conv(8, (3, 3), feature_group_count=4), (5, 5, 4)),
    "conv, several images": (nn.Conv(3, (3, 3)), (2, 5, 5, 2)),
    "conv, own kernels": (nn.ConvLocal(2, (2, 2), padding="VALID"), (3, 3, 2)),
    "conv, transposed": (nn.ConvTranspose(4, (4, 4), strides=(2, 2)), (4, 4, 2)),
    "conv, transposed kernel": (nn.ConvTranspose(4, (3, 3), strides=(2, 2), transpose_kernel=True), (4, 4, 2)),
    "embedding": (nn.Embed(7, 3), TOKENS),
    "embedding, one token": (nn.Embed(7, 3), TOKENS[:, 0]),
    "embedding, grid": (nn.Embed(7, 3), np.stack([TOKENS, STRAY % 7], axis=1)),
    "layer norm": (nn.LayerNorm(), (5, 3)),
    "RMS norm": (nn.RMSNorm(), (5, 3)),
    "group norm": (nn.GroupNorm(2), (5, 5, 4)),
    "instance norm": (nn.InstanceNorm(), (5, 5, 4)),
    "PReLU": (nn.PReLU(), (5, 4)),
    "attention": (nn.MultiHeadDotProductAttention(2), (5, 4)),
    "LSTM": (nn.RNN(nn.LSTMCell(3)), (4, 2)),
    "optimized LSTM": (nn.RNN(nn.OptimizedLSTMCell(3)), (4, 2)),
    "GRU, reverse": (nn.RNN(nn.GRUCell(3), reverse=True, keep_order=True), (4, 2)),
    "convolutional LSTM": (nn.RNN(nn.ConvLSTMCell(2, (3,))), (3, 4, 2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    check(of_module(*LAYERS[name]))


class Stacked(nn.Module):
    """Three layers as one scan."""

    block: type = nn.Dense
    remat: bool = False

    @nn.compact
    def __call__(self, x):
        block = nn.remat(self.block) if self.remat else self.block
        step = lambda layer, carry, _: (jnp.tanh(layer(carry)) + carry, None)  # noqa: E731
        layers = nn.scan(step, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        return layers(block(x.shape[-1]), x, None)[0]


def time_over_layers(private, _, x):
    """Layers scanned within time, and two more steps that all layers share within each."""

    def at_time(carry, x_t):
        def layer(carry, own):
            carry = jnp.tanh(carry @ own["a"] + x_t @ own["b"] + own["c"])
            again = lambda carry, _: (jnp.sin(carry @ own["a"]) + own["c"] * carry, carry @ private["all"])  # noqa: E731
            return lax.scan(again, carry, None, length=2)

        carry, outputs = lax.scan(layer, carry, private["layers"])
        return carry, outputs.sum()

    carry, outputs = lax.scan(at_time, jnp.zeros(4), x, reverse=True)
    return jnp.sum(carry) + jnp.sum(jnp.sin(outputs))


def layers_of_layers(private, _, x):
    """Parameters with two loop axes, remats around both, weights among the outputs of a scan."""

    def outer(carry, own):
        @jax.checkpoint
        def inner(carry, weight):
            return jnp.tanh(carry @ weight.T + own.sum(axis=0)[0]), weight[0]

        carry, firsts = lax.scan(inner, carry, own)
        return carry, (firsts, own)

    outer = jax.checkpoint(outer, policy=jax.checkpoint_policies.dots_saveable)
    carry, (firsts, weights) = lax.scan(outer, x, private)
    return jnp.sum(jnp.sin(carry)) + jnp.sum(jnp.sin(firsts @ carry)) + jnp.sum(jnp.sin(weights @ carry))


def fast_weights(private, _, x):
    """Parameters are the carry of a scan, and learn from the example there."""
    step = lambda w, _: (w - 0.1 * jax.grad(lambda w: jnp.sum(jnp.tanh(x @ w) ** 2))(w), None)  # noqa: E731
    return jnp.sum(jnp.sin(x @ lax.scan(step, private, None, length=3)[0]))


def conv_layers(private, _, x):
    step = lambda c, own: (jnp.tanh(conv(c, own, feature_group_count=2) + conv(c, private["all"])), None)  # noqa: E731
    return jnp.sum(jnp.sin(lax.scan(step, x[None], private["layers"])[0]))


def table_layers(private, _, tokens):
    """Tables that a scan steps through, each looked up and multiplied with, both ways round."""

    def step(carry, table):
        return jnp.tanh(carry + table[tokens].sum(axis=0) + jnp.sin(carry @ table.T) @ table), None

    return jnp.sum(lax.scan(step, jnp.ones(4), private)[0])


def half_remat(private, _, x):
    """A remat whose outputs hold parameters alone and examples too."""
    doubled, loss = jax.checkpoint(lambda own, x: (own["w"] * 2, jnp.sum(jnp.sin(x @ own["w"]))))(private, x)
    return loss + jnp.sum(jnp.cos(x @ doubled))


LOOPS = {
    "stack": of_module(Stacked(), (4,)),
    "stack, positions": of_module(Stacked(), (6, 4)),
    "stack, remat": of_module(Stacked(remat=True), (4,)),
    "stack, remat, positions": of_module(Stacked(remat=True), (6, 4)),
    "time over layers": plain(
        time_over_layers,
        {"layers": {"a": 0.4 * draw(3, 4, 4), "b": draw(3, 2, 4), "c": draw(3, 4)}, "all": draw(4, 3)},
        draw(BATCH, 5, 2),
    ),
    "layers of layers": plain(layers_of_layers, draw(2, 3, 4, 4), draw(BATCH, 4)),
    "fast weights": plain(fast_weights, draw(5, 3), draw(BATCH, 5)),
    "convolutions": plain(conv_layers, {"layers": draw(3, 3, 3, 1, 2), "all": draw(3, 3, 2, 2)}, draw(BATCH, 4, 3, 2)),
    "tables": plain(table_layers, draw(3, 7, 4), TOKENS),
    "half remat": plain(half_remat, {"w": draw(5, 2)}, draw(BATCH, 5)),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOPS)
def test_loops_and_remat(name):
    check(LOOPS[name])


class Tied(nn.Module):
    transposed: bool = False

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(7, 4)
        hidden = nn.Dense(4)(embed(tokens))
        return hidden @ embed.embedding.T if self.transposed else embed.attend(hidden)


def attend_then_look_up(table, _, x):
    return jnp.sum(jnp.tanh(x["hidden"] @ table.T)) + jnp.sum(jnp.sin(table[x["tokens"]]))


def split_kernel(kernel, x):
    query, key, value = jnp.split(kernel, 3, axis=-1)
    return jax.nn.softmax((x @ query) @ (x @ key).T) @ (x @ value)


def standardised(private, x):
    kernel = private["w"]
    return x @ (
        (kernel - kernel.mean(axis=0, keepdims=True)) / jnp.std(kernel, axis=0, keepdims=True) * private["g"][None]
    )


def spectral(steps, private, x):
    """Spectral normalisation: every power iteration reads the last one several times."""
    right = jnp.ones(3)
    for _ in range(steps):
        left = private @ right
        left = left / jnp.sqrt(jnp.sum(left * left))
        right = left @ private
        right = right / jnp.sqrt(jnp.sum(right * right))
    return x @ (private / (left @ private @ right))


SHARED = {
    "twice": on_weights(lambda w, x: jnp.tanh(x @ w) @ w, draw(5, 5), (5,)),
    "twice, positions": on_weights(lambda w, x: jnp.tanh(x @ w) @ w, draw(5, 5)),
    "with its transpose": on_weights(lambda w, x: jnp.tanh(x @ w) @ w.T, draw(5, 3)),
    "as a matrix and entry by entry": on_weights(
        lambda w, x: jnp.tanh(x @ w) * w[:1] + jnp.sum(w * x[0, 0]), draw(5, 3)
    ),
    "tied": of_module(Tied(), TOKENS),
    "tied, transposed": of_module(Tied(True), TOKENS),
    "conv, twice": on_weights(lambda w, x: conv(jnp.tanh(conv(x[None], w)), w), draw(3, 3, 2, 2), (4, 5, 2)),
    "conv, two strides": on_weights(
        lambda w, x: jnp.sum(conv(x[None], w)) + conv(x[None], w, (2, 2)), draw(3, 3, 2, 2), (4, 5, 2)
    ),
    "split kernel": on_weights(split_kernel, draw(5, 6)),
    "overlapping slices": on_weights(lambda w, x: jnp.sin(x[:, :3] @ w[:3]) + jnp.cos(x[:, 2:] @ w[2:]), draw(5, 5)),
    "disjoint slices": on_weights(lambda w, x: jnp.sin(x[:, :3] @ w[:3]) + jnp.cos(x[:, 3:] @ w[3:]), draw(5, 5)),
    "side by side": on_weights(
        lambda w, x: x @ jnp.concatenate([w["a"], w["b"]], 1), {"a": draw(5, 2), "b": draw(5, 3)}
    ),
    "side by side, one twice": on_weights(
        lambda w, x: x @ jnp.concatenate([w["a"], w["b"], w["a"]], 1), {"a": draw(5, 2), "b": draw(5, 3)}
    ),
    "vmap over weights": on_weights(lambda w, x: jax.vmap(lambda w: x @ w)(w), draw(3, 5, 2)),
}


@pytest.mark.parametrize("name", SHARED)
def test_shared_weights(name):
    check(SHARED[name])


def masked(w, public, x):
    return jnp.sum(jnp.sin(x @ (w * MASK)))


def masked_by_public(w, public, x):
    return jnp.sum(jnp.sin(x @ (w * (public > 0).astype(w.dtype))))


EXPRESSIONS = {
    "mask": plain(masked, draw(20, 20), draw(BATCH, 20)),
    "mask, transposed": plain(lambda w, _, x: jnp.sum(jnp.sin(x @ (w * MASK).T)), draw(20, 20), draw(BATCH, 20)),
    "mask of a transpose": plain(lambda w, _, x: jnp.sum(jnp.sin(x @ (w.T * MASK))), draw(20, 20), draw(BATCH, 20)),
    "scaled": on_weights(lambda w, x: x @ (w * 0.3), draw(5, 3), (5,)),
    "mask, positions": plain(masked, draw(20, 20), draw(BATCH, 3, 20)),
    "mask, also without": plain(
        lambda w, _, x: jnp.sum(jnp.sin(x @ (w * MASK)) + jnp.cos(x @ w)), draw(20, 20), draw(BATCH, 20)
    ),
    "two masks": plain(
        lambda w, _, x: jnp.sum(jnp.sin(x @ (w * MASK)) + jnp.cos(x @ (w * (1 - MASK)))), draw(20, 20), draw(BATCH, 20)
    ),
    "mask from public": plain(masked_by_public, draw(20, 20), draw(BATCH, 20), MASK),
    "public, added": plain(
        lambda w, public, x: jnp.sum(jnp.sin(x @ (w + public["w"]) + public["n"])),
        draw(5, 3),
        draw(BATCH, 2, 5),
        {"w": draw(5, 3, seed=1), "n": np.int32(4)},
    ),
    "standardised": on_weights(standardised, {"w": draw(5, 3), "g": draw(3)}),
    "weight norm": on_weights(
        lambda w, x: x @ (w["v"] / jnp.sqrt(jnp.sum(w["v"] ** 2, axis=0, keepdims=True)) * w["g"][None]),
        {"v": draw(5, 3), "g": draw(3)},
    ),
    "spectral norm": on_weights(functools.partial(spectral, 1), draw(5, 3), tolerance=3e-5),
    "softplus": on_weights(lambda w, x: x @ jax.nn.softplus(w), draw(5, 3)),
    "symmetric": on_weights(lambda w, x: x @ (w + w.T), draw(5, 5)),
    "triangle": on_weights(lambda w, x: x @ jnp.tril(w), draw(5, 5)),
    "rolled": on_weights(lambda w, x: x @ jnp.roll(w, 2, axis=0), draw(5, 3)),
    "reshaped": on_weights(lambda w, x: x @ w.reshape(3, 5).T, draw(15)),
    "low rank": on_weights(lambda w, x: x @ (w["a"] @ w["b"]), {"a": draw(5, 2), "b": draw(2, 3)}),
    "table of features": on_weights(lambda w, x: x @ (jnp.asarray(draw(5, 4)) @ w), draw(4, 3)),
    "L2 regularisation": plain(
        lambda w, _, x: jnp.sum(jnp.sin(x @ w)) + 0.1 * jnp.sum(w**2), draw(5, 3), draw(BATCH, 4, 5)
    ),
    "two regularisers": plain(
        lambda w, _, x: jnp.sum(jnp.sin(x @ w)) * jnp.sum(w**2) + jnp.sum(jnp.abs(w)) * x[0], draw(5, 3), draw(BATCH, 5)
    ),
    "plain arrays": on_weights(
        lambda w, x: jnp.sin(x * w["a"][None]) + w["s"] * x + jnp.sum(w["b"]), {"a": draw(5), "s": draw(), "b": draw(2)}
    ),
    "vector": on_weights(lambda w, x: x @ w, draw(5)),
    "inner product": on_weights(lambda w, x: x @ w, draw(5), (5,)),
    "outer product": on_weights(lambda w, x: jnp.outer(w, x) + x @ w, draw(5), (5,)),
    "element by element in a dot": on_weights(
        lambda w, x: lax.dot_general(w, x, (((), ()), ((0,), (0,)))), draw(5), (5,)
    ),
    "dynamic slice": on_weights(
        lambda w, x: lax.dynamic_slice(w, ((x[0] > 0).astype(jnp.int32), 0), (2, 5)) @ x, draw(4, 5), (5,)
    ),
    "scatter": on_weights(lambda w, x: w.at[jnp.argmax(x)].add(x), draw(5, 5), (5,)),
    "sort": on_weights(lambda w, x: x @ jnp.sort(w, axis=0), draw(5, 3)),
    "conv, odd layout": on_weights(
        lambda w, x: conv(
            x[None], w, (2, 1), [(-1, 2), (3, -1)], ("NHWC", "OHWI", "NCHW"), lhs_dilation=(2, 3), rhs_dilation=(2, 1)
        ),
        draw(4, 3, 2, 2),
        (4, 5, 2),
    ),
    "conv, channels first, images": on_weights(
        lambda w, x: conv(x, w, (2, 1), "SAME", ("CNHW", "WIOH", "WNCH")), draw(4, 3, 2, 2), (3, 2, 4, 5)
    ),
    "conv, batch groups": on_weights(lambda w, x: conv(x, w, batch_group_count=2), draw(2, 2, 3, 4), (4, 4, 5, 3)),
    "conv, of the parameter": on_weights(lambda w, x: conv(w, x), draw(1, 4, 5, 3), (2, 2, 3, 4)),
    "unused": plain(lambda w, _, x: jnp.sum(jnp.sin(x @ w["a"])), {"a": draw(5, 3), "b": draw(2)}, draw(BATCH, 5)),
    "no entries": plain(
        lambda w, _, x: jnp.sum(jnp.sin(x @ w["a"])) + jnp.sum(x[:0] @ w["b"]),
        {"a": draw(5, 3), "b": draw(0, 2)},
        draw(BATCH, 5),
    ),
    "lookup, clip": lookup("clip", STRAY),
    "lookup, fill": lookup("fill", STRAY),
    "lookup, wrap": lookup("wrap", STRAY),
    "lookup, bytes": lookup("clip", (STRAY % 7).astype(np.uint8)),
    "lookup, index": plain(lambda w, _, x: jnp.sum(jnp.sin(w[x]) * jnp.arange(5.0)[:, None]), draw(7, 4), STRAY),
    "lookup, two indices": plain(
        lambda w, _, x: jnp.sum(jnp.sin(w[x, x[::-1]]) * jnp.arange(5.0)[:, None]), draw(7, 7, 3), TOKENS
    ),
    "lookup, entries": plain(lambda w, _, x: jnp.sum(jnp.sin(w[x, x[::-1]]) * jnp.arange(5.0)), draw(7, 7), TOKENS),
    "lookup, second axis": plain(
        lambda w, _, x: jnp.sum(jnp.sin(jnp.take(w, x, axis=1)) * jnp.arange(5.0)[None]), draw(3, 7), TOKENS
    ),
    "lookup, one by one": plain(
        lambda w, _, x: jnp.sum(jnp.sin(lax.map(lambda i: w[i], x)) * jnp.arange(5.0)[:, None]), draw(7, 3), TOKENS
    ),
    "one-hot and lookup": plain(
        lambda w, _, x: jnp.sum(jnp.tanh(jax.nn.one_hot(x, 7) @ w)) + jnp.sum(jnp.sin(w[x])), draw(7, 3), TOKENS
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expressions(name):
    check(EXPRESSIONS[name])


def with_gradient_penalty(critic):
    """Second derivatives: parameters enter through the gradient with respect to the example."""

    def loss(private, _, x):
        slope = jax.grad(critic, argnums=1)(private, x)
        return critic(private, x) + jnp.square(jnp.sqrt(jnp.sum(jnp.square(slope))) - 1.0)

    return loss


def dense_critic(private, x):
    return jnp.sum(jnp.tanh(jnp.tanh(x @ private["a"]) @ private["b"]))


def conv_critic(private, x):
    return jnp.sum(jnp.tanh(conv(jnp.tanh(conv(x[None], private["a"], (2, 2))), private["b"], (2, 2))))


def recurrent_critic(private, x):
    step = lambda carry, x_t: (jnp.tanh(carry @ private["u"] + x_t @ private["w"]), None)  # noqa: E731
    return jnp.sum(lax.scan(step, jnp.zeros(3), x)[0])


@jax.custom_vjp
def halved(w, x):
    return x @ w


halved.defvjp(lambda w, x: (x @ w, (w, x)), lambda kept, g: (0.5 * jnp.outer(kept[1], g), 0.3 * kept[0] @ g))


@jax.custom_jvp
def tripled(w):
    return jnp.sin(w)


tripled.defjvps(lambda tangent, _, w: 3 * tangent * w)


def stopped(w, x):
    return x @ lax.stop_gradient(w) + jnp.sin(x @ w)


def fixed_point(w, x):
    """No gradient flows through the while loop."""
    step = lambda state: (state[0] + 1, jnp.tanh(state[1] @ w))  # noqa: E731
    return (x + lax.stop_gradient(lax.while_loop(lambda state: state[0] < 3, step, (0, x))[1])) @ w


def first_order(w, x):
    return jnp.where(x[0] > 0, w, 2 * w) @ x


CONTROL = {
    "gradient penalty": plain(with_gradient_penalty(dense_critic), {"a": draw(4, 6), "b": draw(6, 3)}, draw(BATCH, 4)),
    "gradient penalty, conv": plain(
        with_gradient_penalty(conv_critic), {"a": draw(3, 3, 1, 2), "b": draw(3, 3, 2, 2)}, draw(BATCH, 6, 6, 1)
    ),
    "gradient penalty, recurrent": plain(
        with_gradient_penalty(recurrent_critic), {"u": draw(3, 3), "w": draw(2, 3)}, draw(BATCH, 4, 2)
    ),
    "forward mode": on_weights(lambda w, x: jax.jvp(lambda w: jnp.tanh(x @ w), (w,), (w**2,))[1], draw(5, 3)),
    "cond": on_weights(lambda w, x: lax.cond(x[0] > 0, lambda: x @ w, lambda: jnp.sin(x @ w)), draw(5, 3), (5,)),
    "cond on parameters": on_weights(
        lambda w, x: x @ lax.cond(w[0, 0] > 0, lambda w: 2 * w, lambda w: w**2, w), draw(5, 3), (5,)
    ),
    "switch": on_weights(
        lambda w, x: lax.switch(jnp.argmax(x) % 3, [jnp.sin, jnp.cos, jnp.tanh], x @ w), draw(5, 3), (5,)
    ),
    "select": on_weights(first_order, draw(5, 5), (5,)),
    "while": on_weights(fixed_point, draw(5, 5), (5,)),
    "custom_vjp": on_weights(lambda w, x: halved(w, x), draw(5, 3), (5,)),
    "custom_jvp": on_weights(lambda w, x: x @ tripled(w) + tripled(x @ w), draw(5, 3), (5,)),
    "stop_gradient": on_weights(stopped, draw(5, 3)),
    "jit": on_weights(jax.jit(lambda w, x: jax.jit(jnp.tanh)(x @ w) @ jax.jit(jnp.transpose)(w)), draw(5, 3)),
    "draws of its own": Case(
        lambda params, x, key: jnp.sum(jnp.sin((x + jax.random.normal(key, x.shape)) @ params["private"])),
        draw(5, 3),
        draw(BATCH, 4, 5),
    ),
    "vmap over draws": Case(
        lambda params, x, key: jnp.mean(
            jax.vmap(lambda key: jnp.sum(jnp.sin((x + jax.random.normal(key, x.shape)) @ params["private"])))(
                jax.random.split(key, 3)
            )
        ),
        draw(5, 3),
        draw(BATCH, 5),
    ),
    "bf16 layer": on_weights(
        lambda w, x: jnp.sin((x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)).astype(jnp.float32)), draw(5, 3),
        tolerance=0.02,  # vmap rounds the gradients themselves
    ),
    "bf16 parameters": on_weights(
        lambda w, x: (x.astype(jnp.bfloat16) @ w["w"] + w["b"][None]).astype(jnp.float32),
        {"w": jnp.asarray(draw(5, 3), jnp.bfloat16), "b": jnp.asarray(draw(3), jnp.bfloat16)},
        tolerance=0.02,
    ),
    "bf16 function of parameters": on_weights(
        lambda w, x: x @ jnp.tanh(w).astype(jnp.bfloat16).astype(jnp.float32), draw(5, 3), tolerance=0.02
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTROL)
def test_control_flow_and_derivatives(name):
    check(CONTROL[name])


def bf16_masked(w, x):
    low = jnp.bfloat16
    return (x.astype(low) @ (w.astype(low) * jnp.asarray(MASK, low))).astype(jnp.float32)


def two_closures(w, x):
    first, second = draw(5, 3, seed=1), draw(5, 3, seed=2)
    return jnp.sin(x @ jax.jit(lambda w: w * first)(w)) + jnp.cos(x @ jax.jit(lambda w: w * second)(w))


def called_back(w, x):
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    host = lambda w: np.float32(np.sum(w))  # noqa: E731
    scale = jax.pure_callback(host, shape, lax.stop_gradient(w) + lax.stop_gradient(x[0]), vmap_method="sequential")
    return x @ w * scale


def two_public_scalars(w, public, x):
    return jnp.sum(jnp.sin(x @ (w * public["a"])) + jnp.cos(x @ (w * public["b"])))


def no_steps(w, x):
    return lax.scan(lambda carry, _: (jnp.tanh(carry @ w), None), x, None, length=0)[0] @ w


# Each of these once went wrong, most of them in silence.
HARD = {
    "complex, from the spectrum": on_weights(
        lambda w, x: jnp.abs(jnp.fft.fft(x) * jnp.fft.fft(w)) ** 2, draw(5), (5,), tolerance=3e-5
    ),
    "complex matrix": on_weights(
        lambda w, x: jnp.abs(jnp.fft.fft(x) @ lax.complex(w["r"], w["i"])),
        {"r": draw(5, 3), "i": draw(5, 3, seed=1)},
        (5,),
    ),
    "two public scalars": plain(
        two_public_scalars, draw(5, 3), draw(BATCH, 5), {"a": np.float32(2), "b": np.float32(-3)}
    ),
    "two closures": on_weights(two_closures, draw(5, 3), (5,)),
    "rounded weights": on_weights(
        lambda w, x: x @ w.astype(jnp.int32).astype(jnp.float32) + x @ jnp.sin(w), 3 * draw(5, 3), (5,)
    ),
    "rounded weights, straight through": on_weights(
        lambda w, x: x @ (w + lax.stop_gradient(jnp.round(w) - w)), 3 * draw(5, 3), (5,)
    ),
    "loss without the example": plain(lambda w, _, x: jnp.sum(w**2), draw(5, 3), draw(BATCH, 5)),
    "no positions": on_weights(lambda w, x: jnp.sum(x[:0] @ w["a"]) + x @ w["b"], {"a": draw(5, 3), "b": draw(5, 3)}),
    "no steps": on_weights(no_steps, draw(5, 5), (5,)),
    "bf16 mask": on_weights(bf16_masked, draw(20, 20), (20,), tolerance=0.02),
    "bf16 parameters and mask": on_weights(bf16_masked, jnp.asarray(draw(20, 20), jnp.bfloat16), (20,), tolerance=0.02),
    "mask that was bool": on_weights(
        lambda w, x: x @ (w * jnp.asarray(MASK > 0).astype(jnp.float32)), draw(20, 20), (20,)
    ),
    "callback behind stop_gradient": on_weights(called_back, draw(5, 3), (5,)),
    "unsigned numbers past 2**31": lookup("clip", np.array([[3, 3_000_000_000, 6, 0, 1]] * BATCH, np.uint32)),
    "multiplied with, then looked up": plain(
        attend_then_look_up, draw(7, 4), {"hidden": draw(BATCH, 3, 4), "tokens": TOKENS}
    ),
}


@pytest.mark.parametrize("name", HARD)
def test_hard_expressions(name):
    check(HARD[name])


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (of_module(*LAYERS["dense"]), {"single", "gradient"}),
        (of_module(*LAYERS["dense, positions"]), {"gram", "gradient"}),
        (of_module(*LAYERS["conv 2-d"]), {"gram", "gradient"}),
        (of_module(*LAYERS["embedding, one token"]), {"gram", "gradient"}),
        (EXPRESSIONS["mask"], {"masked"}),
        (EXPRESSIONS["mask, transposed"], {"masked"}),
        (SHARED["twice"], {"gram", "gradient"}),
        (EXPRESSIONS["standardised"], {"gradient"}),
    ],
    ids=["dense", "positions", "conv", "token", "mask", "transposed mask", "twice", "function"],
)
def test_every_way_of_taking_a_norm_is_among_the_tested(case, expected):
    assert methods(case) == expected


@pytest.mark.parametrize(("factor", "method"), [(1.0, "masked"), (3.0, "gradient")])
def test_a_mask_with_entries_above_one_has_no_closed_form(factor, method):
    loss = lambda w, x: jnp.sum(jnp.sin(x @ (w * (factor * MASK))))  # noqa: E731
    plan = ghost.make_plan(loss, draw(20, 20), (draw(BATCH, 20),))
    assert [piece.method for group in plan.groups for piece in group.pieces] == [method]
    check(on_weights(lambda w, x: jnp.sin(x @ (w * (factor * MASK))), draw(20, 20), (20,)))
