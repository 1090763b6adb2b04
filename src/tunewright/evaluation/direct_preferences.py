"""What DPO did to the completions it was shown, beside how it now ranks them (`preferences`). Pure numpy, float64.

A difference of implicit rewards can grow while both completions become less likely, and then the model writes neither.
So what became of each side is shown by itself. Shapes: P comparisons.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunewright.evaluation import statistics
from tunewright.evaluation.preferences import Scored
from tunewright.evaluation.statistics import Interval

WORDS: dict[str, tuple[str, str]] = {
    "chosen_change": ("chosen, change", "nats by which better completions became likelier than to the reference"),
    "rejected_change": ("rejected, change", "the same of worse completions"),
}
HIGHER_IS_BETTER = {"chosen_change": True, "rejected_change": False}


def metrics(scored: Scored, beta: float) -> dict[str, float]:
    """Means over comparisons, ties left out, of log π − log π_ref per completion; `scored` holds β times that."""
    return {name: float(values.mean()) for name, values in _changes(scored, beta).items() if len(values)}


def intervals(scored: Scored, beta: float, samples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """Of both; whole prompts are drawn."""
    _, prompts = np.unique(scored.prompts[scored.decided], return_inverse=True)
    found: dict[str, Interval] = {}
    for name, values in _changes(scored, beta).items():
        if len(values):
            sums = np.stack([np.bincount(prompts, values), np.bincount(prompts)], axis=1)
            drawn = statistics.resampled_sums(sums, samples, seed)
            found[name] = statistics.percentiles(drawn[:, 0] / drawn[:, 1])
    return found


def notes(found: dict[str, float], ends: dict[str, Interval]) -> Sequence[str]:
    """A sentence where the better completions surely became less likely (Razin et al. 2024; Pal et al. 2024)."""
    change = found.get("chosen_change")
    if change is None or "chosen_change" not in ends or ends["chosen_change"].high >= 0:
        return ()
    return (
        f"better completions became less likely too, by {-change:.1f} nats each, and worse ones more so: read what it "
        "writes; a higher align.beta or fewer steps hold it closer to where it started",
    )


def _changes(scored: Scored, beta: float) -> dict[str, np.ndarray]:
    sides = {"chosen_change": scored.better, "rejected_change": scored.worse}
    return {name: side[scored.decided] / beta for name, side in sides.items()}
