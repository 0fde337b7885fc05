"""Privacy ledger and metrics in; Markdown, one HTML page and a terminal summary out."""

from privsyn_jax.report.guarantee import membership_advantage_bound
from privsyn_jax.report.images import ImagePageData, render_image_page
from privsyn_jax.report.page import PageData, render_page
from privsyn_jax.report.privacy import privacy_markdown
from privsyn_jax.report.summary import attack_lines, summary_lines
from privsyn_jax.report.svg import stand_alone
from privsyn_jax.report.texts import TextPageData, render_text_page

__all__ = [
    "ImagePageData",
    "PageData",
    "TextPageData",
    "attack_lines",
    "membership_advantage_bound",
    "privacy_markdown",
    "render_image_page",
    "render_page",
    "render_text_page",
    "stand_alone",
    "summary_lines",
]
