"""A generator of your own, by the import path of the function that makes it: model.name="my_package.my_module:make".

The function takes what the run knows, as keyword arguments, and settings of its own, each with a default:
(*, cardinalities, column_order, ...) for tables, (*, image_shape, num_classes, ...) for images, (*, num_classes,
length, frequencies, kinds, ...) for texts. It returns a `types.Generator` that learns by `private_loss`, and by
`public_loss` where it has one; for other ways to learn, nothing would be bought. The module must be importable: on
PYTHONPATH, or where the program is started; loading a saved model imports it too.

The guarantee covers the records that come in through `private_loss`, not what the code reads by itself. A run that is
gone on with after the module's file has changed draws anew and pays again; what else it imports is not watched.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from privsyn_jax.refuse import imported, require
from privsyn_jax.types import Generator, Images, Tokens, UserError

_TOLD_BY = {"tables": "cardinalities", "images": "image_shape", "texts": "frequencies"}
_BOUGHT = ("calibrate", "stages", "after", "teaching")  # for which a run would have to buy something
SET_BY_THE_RUN = (
    *("cardinalities", "column_order", "image_shape", "num_classes"),
    *("length", "frequencies", "kinds"),
)


def make_function(path: str) -> Callable[..., Generator]:
    """The function, which from now on checks what it makes.

    Raises:
      UserError: it cannot be imported, or does not take what such a function takes.
    """
    function = imported("model.name", path)
    require(callable(function), f"model.name is {path!r}, which is no function: name one that returns a Generator")
    for parameter in inspect.signature(function).parameters.values():
        require(
            parameter.name in SET_BY_THE_RUN or parameter.default is not parameter.empty,
            f"model.name is {path!r}, whose argument {parameter.name!r} has no default: give it one",
        )
    kind = kind_of(function, path)

    @functools.wraps(function)
    def make(**arguments: Any) -> Generator:
        return _checked(function(**arguments), path, _example(kind, arguments))

    return make


def kind_of(function: Callable[..., Any], path: str) -> str:
    """What the function makes generators of: "tables", "images" or "texts"."""
    taken = inspect.signature(function).parameters
    for kind, argument in _TOLD_BY.items():
        if argument in taken:
            return kind
    raise UserError(
        f"model.name is {path!r}, which takes none of {', '.join(_TOLD_BY.values())}: let it take the first for "
        "tables, the second for images, the third for texts"
    )


def source_digest(path: str) -> str:
    """Of the file that holds the function; another in every process where there is no such file."""
    module = importlib.import_module(path.partition(":")[0])
    try:
        return hashlib.sha256(inspect.getsource(module).encode()).hexdigest()[:16]
    except (OSError, TypeError):
        return f"unknown ({uuid.uuid4().hex[:8]})"


def _example(kind: str, arguments: Mapping[str, Any]) -> Any:
    """Shapes and dtypes of one encoded record."""
    label = jax.ShapeDtypeStruct((), jnp.int32)
    if kind == "images":
        return Images(jax.ShapeDtypeStruct(arguments["image_shape"], jnp.uint8), label)
    if kind == "texts":
        return Tokens(jax.ShapeDtypeStruct((arguments["length"],), jnp.int32), label)
    return jax.ShapeDtypeStruct((len(arguments["cardinalities"]),), jnp.int32)


def _checked(generator: Any, path: str, example: Any) -> Generator:
    """The generator; raises ValueError unless a run can train it."""
    if not isinstance(generator, Generator) or generator.private_loss is None:
        raise ValueError(f"{path} returned {type(generator).__name__}: return a types.Generator with a private_loss")
    bought = [name for name in _BOUGHT if getattr(generator, name)]
    if bought:
        raise ValueError(
            f"{path} returned a Generator with {', '.join(bought)}, for which nothing is bought: leave it out"
        )
    key = jax.eval_shape(lambda: jax.random.key(0))
    try:
        params = jax.eval_shape(generator.init, key)
        loss = jax.eval_shape(generator.private_loss, params, example, key)
    except Exception as error:  # of code that is not ours
        reason = " ".join(str(error).split("\n")[0].split())
        raise ValueError(f"{path} fails on one record ({type(error).__name__}: {reason})") from error
    if set(params) != {"private", "public"}:
        raise ValueError(f"init of {path} returned {sorted(params)}: return {{'private': ..., 'public': ...}}")
    if getattr(loss, "shape", None) != () or not jnp.issubdtype(loss.dtype, jnp.floating):
        raise ValueError(f"private_loss of {path} gives {loss} for one record: return one float")
    return generator
