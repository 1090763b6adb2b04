"""As many digits as a metric needs. Imports nothing, so that a command's help can wait for nothing either."""

from __future__ import annotations

import math


def metric_digits(value: float, name: str) -> str:
    """Perplexity has no upper end, BLEU, chrF, lengths and KL run to 100 or so, everything else gets three decimals."""
    if name in ("perplexity", "ref_perplexity"):
        return perplexity(value)
    if name in ("kl", "chosen_change", "rejected_change"):
        return f"{value:.2f}".replace("-0.00", "0.00")
    return f"{value:.1f}" if name in ("bleu", "chrf", "length") else f"{value:.3f}".replace("-0.000", "0.000")


def perplexity(value: float) -> str:
    """Three digits, or all before the point."""
    if not math.isfinite(value):
        return "∞"
    size = abs(value)  # a difference may be negative
    if size >= 1e6:
        return f"{value:.3g}"
    return f"{value:,.{0 if size >= 100 else 1 if size >= 10 else 2}f}"
