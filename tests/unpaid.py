"""Spending that charges nothing: for tests of steps and of the loop."""

from privsyn_jax.privacy.schedules import Level


class Unpaid:
    """One level for num_steps steps, in one block."""

    def __init__(self, level: Level, num_steps: int):
        self.level, self.num_steps, self.path = level, num_steps, []

    def next_block(self, done, released):
        del released
        return self.level._replace(num_steps=self.num_steps - done) if done < self.num_steps else None
