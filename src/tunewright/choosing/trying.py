"""Several base models, several methods, the same rows: which is best, and which is as good for less.

    rows fixed -> baselines -> cost of each candidate -> minutes into tokens -> [rungs] -> trials -> board -> report

Every trial is an ordinary run, done by a worker. What is decided once (the split, the tokens) is written down first, and
finished trials are kept: started again after any stop it goes on, and ends with the same board, measured times aside.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tunewright.choosing import ledger as ledgers
from tunewright.choosing.board import (
    Entry,
    Left,
    Outcome,
    baseline_entry,
    best_trained,
    board_of_marks,
    cheaper_one,
    costs_of,
    keep_baseline,
    keep_mark,
    left_at,
    make_board,
    write_recipe,
)
from tunewright.choosing.ledger import Ledger, run_of
from tunewright.choosing.rows import LIKELIHOODS, ComparedRows, fix_rows, refuse_other_tokenizers
from tunewright.choosing.work import SPEED, Job, Result, Tell, course_of
from tunewright.choosing.workers import Wish, Workers, stopping
from tunewright.errors import DivergedError, MachineError, StoppedError, UsageError
from tunewright.models.finding import BaseModel, resolve_base
from tunewright.opening import _name_of
from tunewright.planning import baselines
from tunewright.planning.trials import (
    Budget,
    Candidate,
    Cost,
    Length,
    allot,
    candidate_values,
    candidates,
    given_values,
    short_name,
    trial_recipe,
)
from tunewright.recipe import Recipe
from tunewright.recording import read_json_object, write_atomically
from tunewright.runs import read_summary

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
    found = candidates(request.recipe, request.models, request.methods)
    folder = runs / f"{request.name}-try"
    with ledgers.opened(folder, request.to_json()) as ledger, stopping(workers) as wish:
        trying = _Trying(request, folder, runs, workers, tell, wish, ledger, found)
        return trying.outcome()


@dataclass
class _Trying:
    """One comparison while it is made."""

    request: Request
    folder: Path
    runs: Path
    workers: Workers
    tell: Tell
    wish: Wish
    ledger: Ledger
    every: list[Candidate]
    begin: float = field(default_factory=time.monotonic)
    left: list[Left] = field(default_factory=list[Left])
    said: list[str] = field(default_factory=list[str])

    def outcome(self) -> Outcome:
        """All of it, in order."""
        self.tell("reading the data")
        refuse_other_tokenizers(self.rows.metric, {name: Path(base.path) for name, base in self.bases.items()})
        there = self._baselines()
        costs = self._costs()
        budget = self._budget(list(costs.values()))
        there += self._prompted(costs)
        staying = self._rungs(list(costs), costs, budget)
        entries = self._trials(staying, costs, budget)
        return self._judged([*entries, *there], costs, budget)

    # ---- what is known before anything is trained ----

    @cached_property
    def rows(self) -> ComparedRows:
        return fix_rows(self.request.recipe, self.folder, self.runs)

    @cached_property
    def bases(self) -> dict[str, BaseModel]:
        """Where each model lies; one that can't be found is an error now."""
        own = self.request.recipe
        return {m: resolve_base(m, own.revision if m == own.model else None, self.runs)
                for m in dict.fromkeys(c.model for c in self.every)}  # fmt: skip

    def _model(self, candidate: Candidate) -> str:
        """As a trial's recipe names it: a run's model by its folder, for trials lie in another folder of runs."""
        base = self.bases[candidate.model]
        return base.path if base.kind in ("run", "folder") else candidate.model

    def _recipe(self, candidate: Candidate, name: str, seed: int, length: Length | None) -> Path:
        """A trial's recipe, on disk."""
        recipe = trial_recipe(
            candidate_values(self.request.recipe, candidate), name=name, seed=seed, length=length, data=self.rows.data,
            model=self._model(candidate), evaluation=self.rows.evaluation,
        )  # fmt: skip
        return write_recipe(self.folder / "recipes" / f"{name}.yaml", given_values(recipe), ())

    # ---- baselines ----

    def _baselines(self) -> list[Entry]:
        """Never reading the text, and counting its words."""
        rows, seed = self.rows, self.request.recipe.training.seed
        if rows.labels is None or rows.train is None:
            return []
        kind: Any = rows.kind
        path = self.folder / "baselines" / "majority.json"
        if not path.exists():
            made = baselines.majority(rows.train.labels, kind, rows.num_outputs, rows.num_judged)
            keep_baseline(path, made.name, made.costs, logits=made.logits)
        found = [baseline_entry(path, rows)]
        if not baselines.has_sklearn():
            self.said.append(baselines.MISSING)
            return found
        path = self.folder / "baselines" / "tfidf.json"
        if not path.exists():
            self.tell("baseline: TF-IDF with a linear model")
            own = rows.train
            made = baselines.tfidf(
                own.texts, own.labels, own.groups, kind, rows.judged_texts, seed, rows.num_outputs
            )  # fmt: skip
            keep_baseline(path, made.name, made.costs, logits=made.logits, said=made.said)
        return [*found, baseline_entry(path, rows)]

    def _prompted(self, costs: dict[Candidate, Cost]) -> list[Entry]:
        """Each base as it is, and with examples in the prompt."""
        if self.request.recipe.task != "generate" or self.rows.metric in LIKELIHOODS:
            return []
        found: list[Entry] = []
        for candidate in {c.model: c for c in reversed(list(costs))}.values():
            paths = {shots: self.folder / "baselines" / f"{candidate.slug}-{shots}.json"
                     for shots in dict.fromkeys((0, self.request.shots))}  # fmt: skip
            if not all(path.exists() for path in paths.values()):
                self._prompt(candidate, paths)
            found += [baseline_entry(path, self.rows) for path in paths.values()]
        return found

    def _prompt(self, candidate: Candidate, paths: dict[int, Path]) -> None:
        short = short_name(candidate.model)
        recipe = self._recipe(candidate, f"{candidate.slug}-prompted", self.request.recipe.training.seed, None)
        job = Job("prompt", str(recipe), str(self.runs), shots=self.request.shots)
        result = self._do(job, f"baseline: {short}: ")
        result.raise_error()
        for shots, path in paths.items():
            made = dict((result.found or {})[str(shots)])
            fewer = int(made["shots"])
            if fewer < shots:
                self.said.append(f"{short}: only {fewer} of {shots} examples fit into its prompt")
            name = f"{short}, {fewer} examples in the prompt" if shots else f"{short} as it is"
            keep_baseline(path, name, made["costs"], answers=made["answers"], ended=made["ended"])

    # ---- minutes into tokens ----

    def _costs(self) -> dict[Candidate, Cost]:
        """What each candidate costs, measured once; those that don't fit into memory are left out."""
        known: dict[str, Any] = dict(self.ledger.get("costs", {}))
        for number, candidate in enumerate(self.every, 1):
            if candidate.name in known:
                continue
            words = f"measuring {number} of {len(self.every)}: {candidate.name}: "
            recipe = self._recipe(candidate, f"{candidate.slug}-measured", self.request.recipe.training.seed, None)
            result = self._do(Job("measure", str(recipe), str(self.folder)), words)
            if result.error is not None and result.error["code"] != MachineError.code:
                result.raise_error()
            known[candidate.name] = {"error": result.error["message"]} if result.error else dict(result.found or {})
            self.ledger.put(costs=known)
        self.left += [Left(c.name, known[c.name]["error"]) for c in self.every if "error" in known[c.name]]
        found = {c: Cost(**known[c.name]) for c in self.every if "error" not in known[c.name]}
        if not found:
            raise MachineError(f"no candidate fits this machine: {self.left[0].why}")
        return found

    def _budget(self, costs: Sequence[Cost]) -> Budget:
        """Decided once: another start's measurements would give other tokens."""
        if (kept := self.ledger.get("budget")) is not None:
            return Budget.from_json(kept)
        wanted = self.request.budget_seconds
        if wanted is not None:
            wanted = max(wanted - (time.monotonic() - self.begin), LEAST_SHARE * wanted)
        found = allot(costs, self.request.seeds, wanted)
        self.ledger.put(budget=found.to_json())
        return found

    # ---- trials ----

    def _rungs(
        self, staying: list[Candidate], costs: dict[Candidate, Cost], budget: Budget
    ) -> list[Candidate]:
        """Who is left after each rung but the last, judged with the first seed."""
        for rung, share in enumerate(budget.shares[:-1]):
            marks: dict[str, Path] = {}
            for candidate in staying:
                words = f"{share:.0%} of the tokens, {len(marks) + 1} of {len(staying)}: {candidate.name}: "
                if (path := self._mark(candidate, rung, costs[candidate], budget, words)) is not None:
                    marks[candidate.name] = path
            board = board_of_marks(marks, self.rows)
            keep = {row.name for row in board.rows[: budget.stay[rung + 1]]}
            self.left += [left_at(row, f"left after {share:.0%} of the tokens") for row in board.rows
                          if row.name not in keep]  # fmt: skip
            staying = [c for c in staying if c.name in keep]
        return staying

    def _mark(self, candidate: Candidate, rung: int, cost: Cost, budget: Budget, words: str) -> Path | None:
        """The metric of a candidate's first trial at this rung; None where it diverged."""
        path = self.folder / "marks" / f"{candidate.slug}-{rung}.safetensors"
        if path.exists():
            return path
        length = cost.steps(budget.tokens, budget.evaluations)
        step = length.every * round(budget.shares[rung] * budget.evaluations)
        run = self._trained(candidate, 0, length, words, pause_at=step)
        if run is None:
            return None
        keep_mark(path, self.rows.measured(run))
        return path

    def _trials(self, staying: Sequence[Candidate], costs: dict[Candidate, Cost], budget: Budget) -> list[Entry]:
        """Every seed of those that stay, one seed of all before the next."""
        finished: dict[Candidate, list[Path]] = {candidate: [] for candidate in staying}
        total, number = len(staying) * self.request.seeds, 0
        for seed in range(self.request.seeds):
            for candidate in staying:
                number += 1
                length = costs[candidate].steps(budget.tokens, budget.evaluations)
                words = f"trial {number} of {total}: {candidate.name}, seed {seed + 1}: "
                run = self._trained(candidate, seed, length, words)
                if run is not None:
                    finished[candidate].append(run)
        return [
            Entry(c.name, tuple(map(self.rows.measured, own)), tuple(map(costs_of, own)))
            for c, own in finished.items()
            if len(own) == self.request.seeds
        ]

    def _trained(
        self, candidate: Candidate, seed: int, length: Length, words: str, pause_at: int | None = None
    ) -> Path | None:
        """The run of a trial, finished, or paused at a step; None where it diverged."""
        name = f"{candidate.slug}-seed{seed + 1}"
        known = self.ledger.trial(name)
        if known.get("state") == "failed":
            return None
        run = run_of(name, self.folder, lambda said: self.tell(words + said))
        if run is not None and self._is_there(run, pause_at, length):
            return run
        recipe = self._recipe(candidate, name, self.request.recipe.training.seed + seed, length)
        self.ledger.put_trial(name, candidate=candidate.name, seed=seed, steps=length.steps, state="running")
        result = self._do(
            Job("train", str(recipe), str(self.folder), resume=run.name if run else None,
                shared=str(self.folder / "features"), pause_at=pause_at), words,
        )  # fmt: skip
        return self._ended(candidate, name, result)

    def _ended(self, candidate: Candidate, name: str, result: Result) -> Path | None:
        if result.error is not None:
            if result.error["code"] != DivergedError.code:
                result.raise_error()
            self.ledger.put_trial(name, state="failed", error=dict(result.error))
            self._lost(candidate, str(result.error["message"]))
            return None
        run = run_of(name, self.folder)
        assert run is not None
        if result.state == "succeeded":
            shutil.rmtree(run / "checkpoints", ignore_errors=True)  # nothing goes on from there
        self.ledger.put_trial(name, state=result.state, run=run.name)
        return run

    def _lost(self, candidate: Candidate, why: str) -> None:
        if all(one.name != candidate.name for one in self.left):
            self.left.append(Left(candidate.name, why))

    def _is_there(self, run: Path, pause_at: int | None, length: Length) -> bool:
        """Whether this run is as far as it is wanted."""
        if read_summary(run).get("state") == "succeeded":
            return (run / SPEED).exists()
        if pause_at is None:
            return False
        epochs = [row for row in course_of(run, self.rows.metric)]
        return len(epochs) == pause_at // length.every

    def _do(self, job: Job, words: str) -> Result:
        """One piece of work; a wish to stop is raised once it has saved."""
        self.tell(words.rstrip(": "))
        result = self.workers.do(job, lambda said: self.tell(words + said))
        self.wish.check()
        if result.state == "stopped":
            result.raise_error()
            raise StoppedError("a trial was stopped; start the same command again to go on")
        return result

    # ---- the end ----

    def _judged(self, entries: Sequence[Entry], costs: dict[Candidate, Cost], budget: Budget) -> Outcome:
        """The board, its recipes and its report."""
        self.tell("comparing")
        if not any(not entry.baseline for entry in entries):
            raise UsageError(f"no trial came to its end: {self.left[-1].why}", where=str(self.folder))
        for name, trial in self.ledger.trials.items():  # of this start or an earlier one
            if trial.get("state") == "failed":
                self._lost(next(c for c in self.every if c.name == trial["candidate"]), trial["error"]["message"])
            assert name
        board, expected = make_board(entries, self.rows)
        self._warn(costs, budget)
        self._note_seconds()
        trained, cheap = best_trained(board), cheaper_one(board)
        assert trained is not None
        path = self._winner("best", trained.name)
        outcome = Outcome(
            name=self.request.name,
            folder=self.folder,
            board=board,
            expected=expected,
            left=tuple(self.left),
            facts=self._facts(costs, budget),
            said=tuple(dict.fromkeys([*self.rows.said, *self.said])),
            runs=self._runs(),
            best=path,
            cheaper=(cheap.name, self._winner("cheaper", cheap.name)) if cheap else None,
        )
        _write(outcome)
        shutil.rmtree(self.folder / "features", ignore_errors=True)
        return outcome

    def _warn(self, costs: dict[Candidate, Cost], budget: Budget) -> None:
        cost = max(costs.values(), key=lambda one: one.full_tokens)
        tokens_of_an_epoch = self._epoch_tokens(cost)
        if budget.tokens < FEW_EPOCHS * tokens_of_an_epoch:
            self.said.append(
                f"each trial learnt from {budget.tokens / tokens_of_an_epoch:.1%} of the rows: too little to say much; "
                "give a larger --budget, or fewer candidates"
            )

    def _epoch_tokens(self, cost: Cost) -> float:
        """Of all training rows once, by the tokenizer that this cost is of."""
        batch = next((r.get("batch_size") for r in [self._resolved()] if r), None)
        steps = -(-self.rows.num_train // int(batch or 8))
        return steps * cost.tokens_per_step

    def _resolved(self) -> dict[str, Any]:
        run = next((self.folder / own[0] for own in self._runs().values() if own), None)
        if run is None or not (run / "recipe.resolved.yaml").exists():
            return {}
        from tunewright.recipe_files import load_recipe

        return load_recipe(run / "recipe.resolved.yaml").training.model_dump()

    def _runs(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for trial in self.ledger.trials.values():
            if trial.get("run"):
                found.setdefault(trial["candidate"], []).append(trial["run"])
        return found

    def _note_seconds(self) -> None:
        self.ledger.put(seconds=round(float(self.ledger.get("seconds", 0.0)) + time.monotonic() - self.begin, 1))

    def _facts(self, costs: dict[Candidate, Cost], budget: Budget) -> dict[str, Any]:
        rows, dearest = self.rows, max(costs.values(), key=lambda one: one.full_tokens)
        return {
            "what": "try",
            "task": self.request.recipe.task,
            "kind": rows.kind,
            "data": self.request.recipe.data.train,
            "train_rows": rows.num_train,
            "judged_rows": rows.num_judged,
            "seeds": self.request.seeds,
            "budget_seconds": self.request.budget_seconds,
            "tokens": round(budget.tokens),
            "epochs": round(budget.tokens / self._epoch_tokens(dearest), 3),
            "full_tokens": round(dearest.full_tokens),
            "shares": list(budget.shares),
            "seconds": self.ledger.get("seconds"),
            "steps": {c.name: cost.steps(budget.tokens, budget.evaluations).steps for c, cost in costs.items()},
        }

    def _winner(self, file: str, name: str) -> Path:
        """A candidate as the person would have written it: as long as the recipe says, not as a trial."""
        candidate = next(c for c in self.every if c.name == name)
        values = candidate_values(self.request.recipe, candidate)
        comment = f"{name}: the {'best' if file == 'best' else 'cheapest that is as good'} of "
        comments = [f"{comment}{len(self.every)} candidates, see report.html beside it"]
        return write_recipe(self.folder / f"{file}.yaml", values, comments)


def _write(outcome: Outcome) -> None:
    """leaderboard.json, and the report beside it."""
    from tunewright.choosing.report import write_report

    write_atomically(outcome.folder / "leaderboard.json", json.dumps(outcome.to_json(), indent=1, default=str))
    write_report(outcome)


def read_outcome(folder: Path) -> dict[str, Any]:
    """leaderboard.json of a finished comparison."""
    return read_json_object(folder / "leaderboard.json")
