"""Spending that charges nothing: for tests of steps and of the loop."""

from privsyn_jax.privacy.schedules import Level


class Unpaid:
    """One level for num_steps steps, in dispatches of at most max_steps."""

    def __init__(self, level: Level, num_steps: int, max_steps: int):
        self.level, self.num_steps, self.max_steps, self.path = level, num_steps, max_steps, []

    def next_block(self, done):
        count = min(self.max_steps, self.num_steps - done)
        return self.level._replace(num_steps=count) if count > 0 else None

    def observe(self, released):
        pass
