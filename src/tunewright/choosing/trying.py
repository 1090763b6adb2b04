"""Several base models, several methods, the same rows: which is best, and which is as good for less.

    rows fixed -> baselines -> cost of each candidate -> minutes into tokens -> [rungs] -> trials -> board -> report

Every trial is an ordinary run, done by a worker. What is decided once (the split, the tokens) is written down first,
and finished trials are kept: started again after any stop it goes on, and ends with the same board, measured times
aside.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tunewright.choosing import ledger as ledgers
from tunewright.choosing import untrained
from tunewright.choosing.board import (
    Entry,
    Left,
    Outcome,
    board_of_marks,
    costs_of,
    finish,
    keep_mark,
    left_at,
    write_recipe,
)
from tunewright.choosing.crew import Crew, TrialPlan
from tunewright.choosing.rows import ComparedRows, fix_rows, refuse_other_tokenizers
from tunewright.choosing.work import Job, Tell
from tunewright.choosing.workers import Workers, log_to, stopping
from tunewright.errors import MachineError
from tunewright.models.finding import BaseModel, resolve_base
from tunewright.opening import _name_of
from tunewright.planning.trials import (
    Budget,
    Candidate,
    Cost,
    Length,
    allot,
    candidate_values,
    candidates,
    given_values,
    trial_recipe,
)
from tunewright.recipe import Recipe

LEAST_SHARE = 0.25  # of the minutes that the trials get, however long measuring took
FEW_EPOCHS = 0.1  # of the data: below this a trial says little


@dataclass(frozen=True)
class Request:
    """What is to be compared."""

    recipe: Recipe
    models: tuple[str, ...] = ()  # none: the recipe's own
    methods: tuple[str, ...] = ()
    seeds: int = 3
    budget_seconds: float | None = 1200.0  # None: every trial as long as the recipe says
    shots: int = 4  # examples in the prompt of a base that is only asked

    @property
    def name(self) -> str:
        return self.recipe.name or _name_of(self.recipe)

    def to_json(self) -> dict[str, Any]:
        """What another start must ask again, or it is another comparison."""
        return {
            "recipe": given_values(self.recipe), "models": list(self.models), "methods": list(self.methods),
            "seeds": self.seeds, "budget_seconds": self.budget_seconds, "shots": self.shots,
        }  # fmt: skip


def try_models(request: Request, runs: Path, workers: Workers, tell: Tell = lambda words: None) -> Outcome:
    """Compare, or go on comparing. Raises what a trial raises, StoppedError when asked to stop."""
    every = candidates(request.recipe, request.models, request.methods)
    folder = runs / f"{request.name}-try"
    with ledgers.opened(folder, request.to_json()) as ledger, stopping(workers) as wish:
        log_to(workers, folder / "workers.log")
        tell("reading the data")
        rows = fix_rows(request.recipe, folder, runs)
        crew = Crew(folder, workers, tell, wish, ledger, rows.metric, rows.higher_is_better)
        return _Trying(request, runs, rows, crew, every).outcome()


@dataclass
class _Trying:
    """One comparison while it is made."""

    request: Request
    runs: Path
    rows: ComparedRows
    crew: Crew
    every: list[Candidate]
    begin: float = field(default_factory=time.monotonic)
    left: list[Left] = field(default_factory=list[Left])
    said: list[str] = field(default_factory=list[str])

    @property
    def folder(self) -> Path:
        return self.crew.folder

    @property
    def seed(self) -> int:
        return self.request.recipe.training.seed

    def outcome(self) -> Outcome:
        """All of it, in order."""
        refuse_other_tokenizers(self.rows.metric, {name: Path(base.path) for name, base in self.bases.items()})
        there = untrained.counting(self.rows, self.folder, self.seed, self.crew.tell, self.said.append)
        costs = self._costs()
        there += self._prompted(list(costs))
        budget = self._budget(list(costs.values()))
        staying = self._rungs(list(costs), costs, budget)
        entries = self._trials(staying, costs, budget)
        self.left += [Left(name, why) for name, why in self.crew.failed().items()
                      if name not in {one.name for one in self.left}]  # fmt: skip
        self._warn(costs, budget)
        return finish(
            [*entries, *there], self.rows, self.crew, name=self.request.name, left=self.left, said=self.said,
            facts=self._facts(costs, budget), begin=self.begin, values=self._values,
        )  # fmt: skip

    # ---- what is known before anything is trained ----

    @cached_property
    def bases(self) -> dict[str, BaseModel]:
        """Where each model lies; one that can't be found is an error now."""
        own = self.request.recipe
        return {m: resolve_base(m, own.revision if m == own.model else None, self.runs)
                for m in dict.fromkeys(c.model for c in self.every)}  # fmt: skip

    def _recipe(self, candidate: Candidate, name: str, seed: int, length: Length | None) -> Path:
        """A trial's recipe, on disk. A run's model is named by its folder, for trials lie in another folder of runs."""
        base = self.bases[candidate.model]
        recipe = trial_recipe(
            candidate_values(self.request.recipe, candidate), name=name, seed=seed, length=length, data=self.rows.data,
            model=base.path if base.kind in ("run", "folder") else candidate.model, evaluation=self.rows.evaluation,
        )  # fmt: skip
        return write_recipe(self.folder / "recipes" / f"{name}.yaml", given_values(recipe))

    def _prompted(self, fitting: Sequence[Candidate]) -> list[Entry]:
        """Bases that write, only asked."""
        first = {candidate.model: candidate for candidate in reversed(fitting)}
        models = {model: (c.slug, self._recipe(c, f"{c.slug}-prompted", self.seed, None)) for model, c in first.items()}
        shots = self.request.shots
        return untrained.prompting(self.rows, self.folder, models, shots, self.crew.do, self.said.append)

    # ---- minutes into tokens ----

    def _costs(self) -> dict[Candidate, Cost]:
        """What each candidate costs, measured once; those that don't fit into memory are left out."""
        known: dict[str, Any] = dict(self.crew.ledger.get("costs", {}))
        for number, candidate in enumerate(self.every, 1):
            if candidate.name in known:
                continue
            words = f"measuring {number} of {len(self.every)}: {candidate.name}: "
            recipe = self._recipe(candidate, f"{candidate.slug}-measured", self.seed, None)
            result = self.crew.do(Job("measure", str(recipe), str(self.crew.runs)), words)
            if result.error is not None and result.error["code"] != MachineError.code:
                result.raise_error()
            known[candidate.name] = {"error": result.error["message"]} if result.error else dict(result.found or {})
            self.crew.ledger.put(costs=known)
        self.left += [Left(c.name, known[c.name]["error"]) for c in self.every if "error" in known[c.name]]
        found = {c: Cost(**known[c.name]) for c in self.every if "error" not in known[c.name]}
        if not found:
            raise MachineError(f"no candidate fits this machine: {self.left[0].why}")
        return found

    def _budget(self, costs: Sequence[Cost]) -> Budget:
        """Decided once: another start's measurements would give other tokens."""
        if (kept := self.crew.ledger.get("budget")) is not None:
            return Budget.from_json(kept)
        wanted = self.request.budget_seconds
        if wanted is not None:
            wanted = max(wanted - (time.monotonic() - self.begin), LEAST_SHARE * wanted)
        found = allot(costs, self.request.seeds, wanted)
        self.crew.ledger.put(budget=found.to_json())
        return found

    # ---- trials ----

    def _rungs(self, staying: list[Candidate], costs: dict[Candidate, Cost], budget: Budget) -> list[Candidate]:
        """Who is left after each rung but the last, judged with the first seed."""
        for rung, share in enumerate(budget.shares[:-1]):
            marks: dict[str, Path] = {}
            for number, candidate in enumerate(staying, 1):
                words = f"{share:.0%} of the tokens, {number} of {len(staying)}: {candidate.name}: "
                if (path := self._mark(candidate, rung, costs[candidate], budget, words)) is not None:
                    marks[candidate.name] = path
            if not marks:
                return []
            board = board_of_marks(marks, self.rows)
            keep = {row.name for row in board.rows[: budget.stay[rung + 1]]}
            gone = [row for row in board.rows if row.name not in keep]
            self.left += [left_at(row, f"left after {share:.0%} of the tokens, with one seed") for row in gone]
            staying = [c for c in staying if c.name in keep]
        return staying

    def _mark(self, candidate: Candidate, rung: int, cost: Cost, budget: Budget, words: str) -> Path | None:
        """The metric of a candidate's first trial at this rung; None where it diverged."""
        path = self.folder / "marks" / f"{candidate.slug}-{rung}.safetensors"
        if path.exists():
            return path
        length = cost.steps(budget.tokens, budget.evaluations)
        after = round(budget.shares[rung] * budget.evaluations)
        ended = self.crew.train(self._plan(candidate, 0, length), words, pause_after=after, every=length.every)
        if ended.run is None:
            return None
        keep_mark(path, self.rows.measured(ended.run))
        return path

    def _trials(self, staying: Sequence[Candidate], costs: dict[Candidate, Cost], budget: Budget) -> list[Entry]:
        """Every seed of those that stay, one seed of all before the next."""
        finished: dict[Candidate, list[Path]] = {candidate: [] for candidate in staying}
        total, number = len(staying) * self.request.seeds, 0
        for seed in range(self.request.seeds):
            for candidate in staying:
                number += 1
                plan = self._plan(candidate, seed, costs[candidate].steps(budget.tokens, budget.evaluations))
                ended = self.crew.train(plan, f"trial {number} of {total}: {candidate.name}, seed {seed + 1}: ")
                if ended.run is not None:
                    finished[candidate].append(ended.run)
        whole = {c: own for c, own in finished.items() if len(own) == self.request.seeds}
        return [
            Entry(c.name, tuple(map(self.rows.measured, own)), tuple(map(costs_of, own))) for c, own in whole.items()
        ]

    def _plan(self, candidate: Candidate, seed: int, length: Length) -> TrialPlan:
        name = f"{candidate.slug}-seed{seed + 1}"
        recipe = self._recipe(candidate, name, self.seed + seed, length)
        return TrialPlan(name, candidate.name, recipe, {"seed": self.seed + seed, "steps": length.steps})

    # ---- the end ----

    def _values(self, name: str) -> dict[str, Any]:
        """A candidate as the person would have written it: as long as the recipe says, not as a trial."""
        return candidate_values(self.request.recipe, next(c for c in self.every if c.name == name))

    def _warn(self, costs: dict[Candidate, Cost], budget: Budget) -> None:
        if self.request.seeds == 2:
            self.said.append(
                "two seeds tell little of the spread between seeds, so intervals are wide; three tell more"
            )
        epochs = budget.tokens / max(cost.epoch_tokens for cost in costs.values())
        if epochs < FEW_EPOCHS:
            self.said.append(
                f"each trial learnt from {epochs:.1%} of the rows, too little to say much: give a larger --budget, or "
                "fewer candidates"
            )

    def _facts(self, costs: dict[Candidate, Cost], budget: Budget) -> dict[str, Any]:
        return {
            "what": "try",
            "candidates": len(self.every),
            "seeds": self.request.seeds,
            "budget_seconds": self.request.budget_seconds,
            "tokens": round(min(budget.tokens, max(cost.full_tokens for cost in costs.values()))),
            "epochs": {c.name: round(min(budget.tokens, cost.full_tokens) / cost.epoch_tokens, 3)
                       for c, cost in costs.items()},
            "full": all(budget.tokens >= cost.full_tokens for cost in costs.values()),
            "shares": list(budget.shares),
            "task": self.request.recipe.task,
            "data": self.request.recipe.data.train,
        }  # fmt: skip
