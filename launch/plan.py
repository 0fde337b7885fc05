"""What a run would spend and need, without opening a private row.

python -m launch.plan --config=configs/quickstart.py
"""

from __future__ import annotations

from launch.program import start


def main(settings) -> None:
    from privsyn_jax.estimate import estimate
    from privsyn_jax.explain import plan_lines
    from privsyn_jax.run import prepare
    from privsyn_jax.statement import declared_public

    schema, plan = prepare(settings)
    print("\n".join(plan_lines(plan, schema)))
    print("declared public:")
    print("\n".join(f"  {fact}" for fact in declared_public(schema)))
    print("measuring a few steps on random records ...")
    print("\n".join(estimate(settings, schema, plan)))


if __name__ == "__main__":
    start(main)
