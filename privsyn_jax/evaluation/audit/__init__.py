"""Lower bounds on epsilon from what an adversary can tell apart, and whether they contradict what is claimed."""

from __future__ import annotations

from privsyn_jax.evaluation.audit.black_box import (
    audit_synthesizer,
    audit_synthetic,
    audit_synthetic_sets,
    closeness,
)
from privsyn_jax.evaluation.audit.bounds import one_run_bound, repeated_bound
from privsyn_jax.evaluation.audit.likelihood import likelihood_scores
from privsyn_jax.evaluation.audit.result import AuditResult, audit_result, audit_to_dict

__all__ = [
    "AuditResult",
    "audit_result",
    "audit_synthesizer",
    "audit_synthetic",
    "audit_synthetic_sets",
    "audit_to_dict",
    "closeness",
    "likelihood_scores",
    "one_run_bound",
    "repeated_bound",
]
