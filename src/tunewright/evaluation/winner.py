"""How good the winner of a comparison really is: the best of many looks better than it is, for it was lucky too.

On each resample of the rows the winner is chosen anew, as it was chosen on all rows, and judged on the rows that the
resample left out (Tsamardinos et al. 2018, bootstrap bias correction). The mean of that is what the way of choosing
gives on new rows. Luck of the seeds is not in it: more seeds are the remedy there.

Shapes: N rows, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunewright.evaluation.resampling import Measured, draws, value

SAMPLES = 500


@dataclass(frozen=True)
class Expected:
    """What to expect of the winner."""

    value: float  # of the winner, on rows that didn't choose it
    optimism: float  # by how much its own number flatters; above 0 where higher is better, turned where it isn't


def expected_of_winner(
    candidates: Sequence[Sequence[Measured]], *, higher_is_better: bool, seed: int = 0, samples: int = SAMPLES
) -> Expected | None:
    """For each candidate the metric of each of its seeds, on the same rows. None for fewer than two candidates."""
    if len(candidates) < 2:
        return None
    sign, judged = 1.0 if higher_is_better else -1.0, []
    for drawn in draws(candidates[0][0].num_rows, samples, seed):
        chosen_by, judged_by = _means(candidates, drawn), _means(candidates, (drawn == 0).astype(np.float64))
        best = np.argmax(np.where(np.isfinite(chosen_by), sign * chosen_by, -np.inf), axis=0)
        judged.append(judged_by[best, np.arange(len(drawn))])
    values = np.concatenate(judged)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    best = max(sign * float(np.mean([value(one) for one in seeds])) for seeds in candidates)
    mean = float(values.mean())
    return Expected(mean, best - sign * mean)


def _means(candidates: Sequence[Sequence[Measured]], weights: np.ndarray) -> np.ndarray:
    """[candidates, R], each the mean over its seeds."""
    return np.stack([np.mean([one.of(weights) for one in seeds], axis=0) for seeds in candidates])
