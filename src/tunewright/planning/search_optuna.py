"""Optuna's tree of Parzen estimators as a sampler: each trial's values learn from those before it (extra `search`).

The study lives for one proposal: it is filled with what was tried, so that a search goes on after any stop without a
database of its own, and a trial that still runs counts as one whose result is expected to be poor (constant liar).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunewright.errors import MachineError
from tunewright.planning.search import Chosen, Dimension, Tried, _frozen, _thawed


def load_optuna() -> Any:
    """The package, silent. MachineError with what to install."""
    try:
        import optuna  # type: ignore[import-not-found]
    except ImportError:
        says = "search method optuna needs the package optuna; run: pip install 'tunewright[search]', or say random"
        raise MachineError(says, field="search.method") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@dataclass(frozen=True)
class OptunaSampler:
    """Proposes until there are so many."""

    dimensions: tuple[Dimension, ...]
    trials: int
    seed: int
    higher_is_better: bool

    def __post_init__(self) -> None:
        load_optuna()  # missing: said before the first trial

    def propose(self, past: Sequence[Tried]) -> Chosen | None:
        if len(past) >= self.trials:
            return None
        optuna = load_optuna()
        # A seed per proposal: the same past gives the same next one, wherever the process began.
        sampler = optuna.samplers.TPESampler(
            seed=(self.seed + len(past)) % 2**32, constant_liar=True, multivariate=True,
            n_startup_trials=min(10, max(4, self.trials // 4)),
        )  # fmt: skip
        study = optuna.create_study(direction="maximize" if self.higher_is_better else "minimize", sampler=sampler)
        spaces = {d.path: _distribution(optuna, d) for d in self.dimensions}
        for tried in past:
            study.add_trial(_as_trial(optuna, tried, spaces, self.dimensions))
        asked = study.ask(spaces)
        return {d.path: _value(d, asked.params[d.path]) for d in self.dimensions}


def _distribution(optuna: Any, d: Dimension) -> Any:
    kinds = optuna.distributions
    if d.choices:  # by number: a value may be a list, which Optuna doesn't take
        return kinds.CategoricalDistribution(tuple(range(len(d.choices))))
    if d.whole:
        return kinds.IntDistribution(int(d.low), int(d.high), log=d.log)
    return kinds.FloatDistribution(d.low, d.high, log=d.log)


def _value(d: Dimension, given: Any) -> Any:
    return _thawed(d.choices[given]) if d.choices else given


def _as_trial(optuna: Any, tried: Tried, spaces: dict[str, Any], dimensions: Sequence[Dimension]) -> Any:
    params = {
        d.path: d.choices.index(_frozen(tried.chosen[d.path])) if d.choices else tried.chosen[d.path]
        for d in dimensions
    }
    states = optuna.trial.TrialState
    state = states.RUNNING if not tried.ended else states.FAIL if tried.value is None else states.COMPLETE
    value = tried.value if state == states.COMPLETE else None
    return optuna.trial.create_trial(params=params, distributions=spaces, value=value, state=state)
