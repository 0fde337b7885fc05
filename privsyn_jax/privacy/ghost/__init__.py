"""Ghost clipping: exact per-example gradient norms and clipped sums of any JAX loss, from one backward pass.

`trace` interprets the loss and finds every use of a parameter, `uses` and `conv` bring a use to a common form,
`norms` takes norms of that form, `plan` chooses between them, `engine` runs the choice.

Source: Goodfellow 2015, "Efficient Per-Example Gradient Computations"; Bu et al. 2023, "Differentially Private
Optimization on Large Model at Small Cost" (book-keeping).
"""

from privsyn_jax.privacy.ghost.engine import Gradients, Plan, contains_conv, make_plan, per_example
from privsyn_jax.privacy.ghost.trace import varying_axes

__all__ = ["Gradients", "Plan", "contains_conv", "make_plan", "per_example", "varying_axes"]
