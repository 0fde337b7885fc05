"""The content of privacy_report.json as an object: a dict that a notebook shows as the claim and its ledger."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from privsyn_jax.report.guarantee import banners, is_private
from privsyn_jax.report.numbers import format_epsilon, format_number
from privsyn_jax.report.privacy import LEDGER_HEADER, claim_rows, ledger_rows
from privsyn_jax.views import html_parts as html


class PrivacyReport(dict[str, Any]):
    """See `statement.privacy_statement`."""

    @property
    def claim(self) -> str:
        """One line."""
        if not is_private(self):
            return "NOT PRIVATE"
        epsilon, delta = format_epsilon(self["epsilon"]), format_number(self["delta"])
        return f"epsilon {epsilon}, delta {delta} per {self['privacy_unit']}"

    @property
    def stamps(self) -> list[Markup]:
        """What must be seen before anything else."""
        return [html.stamp(f"{headline}: {explanation}") for headline, explanation in banners(self)]

    def _repr_html_(self) -> str:
        return html.block(
            f"Privacy report: {self.claim}",
            *self.stamps,
            *map(html.stamp, self.get("warnings", ())),
            html.table(("quantity", "value"), claim_rows(self)),
            html.table(LEDGER_HEADER, ledger_rows(self)),
            html.note(f"Taken as public: {'; '.join(self.get('declared_public', ())) or 'nothing'}."),
        )
