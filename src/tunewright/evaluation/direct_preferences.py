"""How well a model aligned by DPO ranks comparisons, and what became of the completions it was shown. Pure numpy.

Its implicit rewards β (log π − log π_ref) are judged as a reward model's scores are (`preferences`). But a difference
of rewards can grow while both completions become less likely, and then the model writes neither: so each side is shown
by itself. The start is the reference, for which every reward is 0. Shapes: N prompts, P comparisons.
"""

from __future__ import annotations

import math

import numpy as np

from tunewright.evaluation import preferences, statistics
from tunewright.evaluation.preferences import Scored
from tunewright.evaluation.statistics import Interval, Paired
from tunewright.evaluation.texts import p_value

# What the table says, in its order: a name, and its meaning.
WORDS: dict[str, tuple[str, str]] = {
    "accuracy": ("accuracy", "share of comparisons whose better completion gained more than the worse one"),
    "loss": ("loss", "surprise at what people preferred, in nats per prompt; ln 2 = 0.693 is guessing"),
    "margin": ("margin", "implicit reward of the better completion above the worse one's, in log-odds"),
    "chosen_change": ("chosen, change", "nats by which better completions became likelier than they were at the start"),
    "rejected_change": ("rejected, change", "the same of worse completions"),
}
HIGHER_IS_BETTER = {"accuracy": True, "loss": False, "margin": True, "chosen_change": True, "rejected_change": False}
AT_THE_START = {"accuracy": 0.5, "loss": math.log(2), "margin": 0.0, "chosen_change": 0.0, "rejected_change": 0.0}


def metrics(scored: Scored, beta: float) -> dict[str, float]:
    """Of `scored`, the implicit rewards; of comparisons that are all ties only the loss."""
    found = {name: value for name, value in preferences.metrics(scored).items() if name in WORDS}
    return found | {name: float(values.mean()) for name, values in _changes(scored, beta).items() if len(values)}


def at_the_start(scored: Scored) -> dict[str, float]:
    """The same by the reference, which prefers nothing."""
    known = AT_THE_START if scored.decided.any() else {"loss": AT_THE_START["loss"]}
    return dict(known) if len(scored.prompts) else {}


def intervals(scored: Scored, beta: float, samples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """Of every metric; whole prompts are drawn."""
    ends, prompts = preferences.intervals(scored, samples, seed), scored.prompts[scored.decided]
    found = {name: one for name, one in ends.items() if name in WORDS}
    for name, values in _changes(scored, beta).items():
        if len(values):
            found[name] = statistics.percentiles(_drawn_means(values, prompts, samples, seed))
    return found


def paired(scored: Scored, beta: float, samples: int = 1000, seed: int = 0) -> dict[str, Paired]:
    """Against the start: after − before; comparisons (of the loss, prompts) that went the right way, and the wrong."""
    decided = scored.decided
    differences, prompts = scored.differences[decided], scored.prompts[decided]
    changes = {"margin": differences, **_changes(scored, beta)}
    found: dict[str, Paired] = {}
    if len(differences):
        found["accuracy"] = preferences.paired(np.zeros(len(differences)), differences, prompts, samples, seed)
        found |= {name: _compared(name, values, prompts, samples, seed) for name, values in changes.items()}
    if len(scored.prompts):
        less = preferences.prompt_losses(scored.differences, scored) - math.log(2)
        found["loss"] = _compared("loss", less, np.arange(len(less)), samples, seed)
    return found


def warning(ends: dict[str, Interval]) -> str | None:
    """Where better completions surely became less likely (Pal et al. 2024, "Smaug"; Razin et al. 2024)."""
    change = ends.get("chosen_change")
    if change is None or change.high >= 0:
        return None
    return (
        f"better completions became less likely too, by {-change.high:.1f} to {-change.low:.1f} nats each: read what "
        "it writes; a higher align.beta, fewer steps, or a base tuned on them first would hold them"
    )


def _changes(scored: Scored, beta: float) -> dict[str, np.ndarray]:
    """log π − log π_ref of both sides, in nats, of decided comparisons."""
    sides = {"chosen_change": scored.better, "rejected_change": scored.worse}
    return {name: side[scored.decided] / beta for name, side in sides.items()}


def _compared(name: str, change: np.ndarray, prompts: np.ndarray, samples: int, seed: int) -> Paired:
    drawn = _drawn_means(change, prompts, samples, seed)
    gained = change if HIGHER_IS_BETTER[name] else -change
    better, worse = int((gained > 0).sum()), int((gained < 0).sum())
    return Paired(better, worse, p_value(drawn), float(change.mean()), statistics.percentiles(drawn))


def _drawn_means(values: np.ndarray, prompts: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Means [S] over S draws of whole prompts."""
    _, number = np.unique(prompts, return_inverse=True)
    sums = np.stack([np.bincount(number, values), np.bincount(number)], axis=1)
    drawn = statistics.resampled_sums(sums, samples, seed)
    return drawn[:, 0] / drawn[:, 1]
