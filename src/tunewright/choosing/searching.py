"""A search over settings: proposals, trials (several at once, if asked), the poor ones stopped, the best ones repeated.

    search: block -> proposals -> trials, each an ordinary run -> seeds for the best -> board -> report

What was proposed is written down before it is run, so that a search that was stopped goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tunewright.choosing import ledger as ledgers
from tunewright.choosing import untrained
from tunewright.choosing.board import Entry, Left, Outcome, costs_of, finish, write_recipe
from tunewright.choosing.crew import Crew, TrialPlan
from tunewright.choosing.rows import ComparedRows, fix_rows, refuse_other_tokenizers
from tunewright.choosing.work import Tell, course_of
from tunewright.choosing.workers import Workers, log_to, stopping
from tunewright.evaluation.resampling import value
from tunewright.models.finding import resolve_base
from tunewright.opening import _name_of
from tunewright.planning.search import Sampler, SearchPlan, Tried, limits, sampler_of, with_settings
from tunewright.planning.trials import given_values
from tunewright.recipe_files import build_recipe

REPEATED = 3  # of the best, with further seeds before one of them is named
ENDED = ("succeeded", "poor", "failed", "same")


def search(
    plan: SearchPlan,
    runs: Path,
    workers: Workers,
    tell: Tell = lambda words: None,
    *,
    jobs: int = 1,
    threads: int | None = None,
) -> Outcome:
    """Search, or go on searching. `jobs` trials at once, each with so many threads. Raises what a trial raises."""
    name = plan.recipe.name or _name_of(plan.recipe)
    folder = runs / f"{name}-search"
    request = {
        "recipe": given_values(plan.recipe), "search": [vars(d) for d in plan.dimensions], "method": plan.method,
        "trials": plan.trials, "options": plan.options.model_dump(),
    }  # fmt: skip
    with ledgers.opened(folder, request) as ledger, stopping(workers) as wish:
        log_to(workers, folder / "workers.log")
        tell("reading the data")
        rows = fix_rows(plan.recipe, folder, runs)
        crew = Crew(folder, workers, tell, wish, ledger, rows.metric, rows.higher_is_better)
        return _Searching(name, plan, runs, rows, crew, jobs, threads).outcome()


@dataclass
class _Searching:
    """One search while it goes on."""

    name: str
    plan: SearchPlan
    runs: Path
    rows: ComparedRows
    crew: Crew
    jobs: int
    threads: int | None
    begin: float = field(default_factory=time.monotonic)
    said: list[str] = field(default_factory=list[str])

    def outcome(self) -> Outcome:
        """All of it, in order."""
        refuse_other_tokenizers(self.rows.metric, {name: Path(path) for name, path in self.bases.items()})
        sampler = sampler_of(self.plan, higher_is_better=self.rows.higher_is_better)  # what is missing is said now
        seed, folder = self.plan.recipe.training.seed, self.crew.folder
        there = untrained.counting(self.rows, folder, seed, self.crew.tell, self.said.append)
        self._propose_and_run(sampler)
        self._repeat_the_best()
        return finish(
            [*self._entries().values(), *there], self.rows, self.crew, name=self.name, left=self._left(),
            said=self.said, facts=self._facts(), begin=self.begin, values=self._values,
        )  # fmt: skip

    # ---- proposals ----

    def _propose_and_run(self, sampler: Sampler) -> None:
        """First what an earlier start left unfinished, then one proposal after the other."""
        waiting = [number for number, trial in self._numbered().items() if trial["state"] not in ENDED]
        with ThreadPoolExecutor(self.jobs) as pool:
            running: dict[Future[None], int] = {}
            try:
                while True:
                    while len(running) < self.jobs and (number := self._next(waiting, sampler)) is not None:
                        running[pool.submit(self._run, number)] = number
                    if not running:
                        return
                    done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)  # signals are heard in between
                    for future in done:
                        del running[future]
                        future.result()
            except BaseException:
                self.crew.workers.stop()
                raise

    def _next(self, waiting: list[int], sampler: Sampler) -> int | None:
        """The number of the trial to run now, proposed and written down."""
        if waiting:
            return waiting.pop(0)
        while (chosen := sampler.propose(self._past())) is not None:
            numbered = self._numbered()
            number = len(numbered) + 1
            twin = next((n for n, trial in numbered.items() if trial["chosen"] == chosen), None)
            facts = {"candidate": self.plan.label(chosen), "chosen": chosen, "number": number}
            self.crew.ledger.put_trial(_slug(number), state="same" if twin else "proposed", same_as=twin, **facts)
            if twin is None:
                return number
        return None

    def _past(self) -> list[Tried]:
        return [Tried(trial["chosen"], self._value_of(trial), trial["state"] in ENDED)
                for trial in self._numbered().values()]  # fmt: skip

    def _value_of(self, trial: Mapping[str, Any]) -> float | None:
        """The metric of a trial that ended, or the last one before it was stopped."""
        if trial.get("same_as"):
            return self._value_of(self._numbered()[trial["same_as"]])
        if trial["state"] == "succeeded":
            return value(self.rows.measured(self.crew.runs / trial["run"]))
        if trial["state"] == "poor":
            return course_of(self.crew.runs / trial["run"], self.rows.metric)[-1][1]
        return None

    def _numbered(self) -> dict[int, dict[str, Any]]:
        """Proposed trials by their numbers; repeats with other seeds have none."""
        return {t["number"]: t for t in self.crew.ledger.trials.values() if "number" in t}

    # ---- trials ----

    def _run(self, number: int) -> None:
        trial = self._numbered()[number]
        words = f"trial {number} of {self.plan.trials}: {trial['candidate']}: "
        facts = {"chosen": trial["chosen"], "number": number}
        plan = self._planned(_slug(number), trial["candidate"], trial["chosen"], self.plan.recipe.training.seed, facts)
        self.crew.train(plan, words, limits=self._limits(number))

    def _limits(self, number: int) -> Sequence[tuple[float, float]]:
        """What this trial must reach, by those that have ended."""
        if not self.plan.options.stop_poor:
            return ()
        others = [t for n, t in self._numbered().items() if n != number and t["state"] in ("succeeded", "poor")]
        courses = [course_of(self.crew.runs / t["run"], self.rows.metric) for t in others]
        return limits(courses, higher_is_better=self.rows.higher_is_better)

    def _planned(
        self, name: str, candidate: str, chosen: Mapping[str, Any], seed: int, facts: dict[str, Any]
    ) -> TrialPlan:
        """A trial's recipe, on disk."""
        values = self.plan.recipe_with(chosen)
        fixed = {f"data.{key}": item for key, item in self.rows.data.items()}
        fixed |= {f"evaluation.{key}": item for key, item in self.rows.evaluation.items()}
        fixed |= {"name": name, "training.seed": seed, "evaluation.before": False}
        model = str(values.get("model") or self.plan.recipe.model)
        fixed["model"] = self.bases[model]
        if self.threads is not None and self.plan.recipe.training.threads == "auto":
            fixed["training.threads"] = self.threads
        recipe = build_recipe(with_settings(values, fixed))
        path = write_recipe(self.crew.folder / "recipes" / f"{name}.yaml", given_values(recipe))
        return TrialPlan(name, candidate, path, facts | {"seed": seed})

    @cached_property
    def bases(self) -> dict[str, str]:
        """Model as given -> as a trial names it, by its folder where it is one of these runs."""
        dimension = next((d for d in self.plan.dimensions if d.path == "model"), None)
        names = [str(name) for name in dimension.choices] if dimension else [self.plan.recipe.model]
        found = {name: resolve_base(name, self.plan.recipe.revision, self.runs) for name in names}
        return {name: base.path if base.kind in ("run", "folder") else name for name, base in found.items()}

    # ---- the best ones again ----

    def _repeat_the_best(self) -> None:
        """Further seeds for the best three, and for whoever leads then, until the leader has them all."""
        wanted, done = self.plan.options.seeds, set[str]()
        while wanted > 1:
            ranked = sorted(self._entries().values(), key=lambda e: self._sign * self._mean(e), reverse=True)
            again = [e.name for e in ranked[: 1 if done else REPEATED] if e.name not in done]
            if not again:
                return
            for name in again:
                done.add(name)
                self._repeat(name, wanted)

    def _repeat(self, candidate: str, wanted: int) -> None:
        number, trial = next((n, t) for n, t in self._numbered().items() if t["candidate"] == candidate)
        for more in range(1, wanted):
            seed = self.plan.recipe.training.seed + more
            plan = self._planned(f"{_slug(number)}-seed{more + 1}", candidate, trial["chosen"], seed, {})
            self.crew.train(plan, f"once more, seed {more + 1} of {wanted}: {candidate}: ")

    @property
    def _sign(self) -> float:
        return 1.0 if self.rows.higher_is_better else -1.0

    @staticmethod
    def _mean(entry: Entry) -> float:
        return sum(map(value, entry.measured)) / len(entry.measured)

    # ---- the end ----

    def _entries(self) -> dict[str, Entry]:
        """Trials that came to their end, by candidate, with as many seeds as there are."""
        runs: dict[str, list[Path]] = {}
        for trial in self.crew.ledger.trials.values():
            if trial["state"] == "succeeded":
                runs.setdefault(trial["candidate"], []).append(self.crew.runs / trial["run"])
        return {name: Entry(name, tuple(map(self.rows.measured, own)), tuple(map(costs_of, own)))
                for name, own in runs.items()}  # fmt: skip

    def _left(self) -> list[Left]:
        found: list[Left] = []
        for trial in self._numbered().values():
            if trial["state"] == "poor":
                words = "stopped early, behind the median of the others"
                found.append(Left(trial["candidate"], words, self._value_of(trial)))
            elif trial["state"] == "failed":
                found.append(Left(trial["candidate"], trial["error"]["message"]))
        return found

    def _facts(self) -> dict[str, Any]:
        numbered = self._numbered()
        return {
            "what": "search",
            "candidates": len({trial["candidate"] for trial in numbered.values()}),
            "trials": len(numbered),
            "method": self.plan.method,
            "seeds": self.plan.options.seeds,
            "stopped": sum(trial["state"] == "poor" for trial in numbered.values()),
            "keep": self.plan.recipe.evaluation.keep,
            "task": self.plan.recipe.task,
            "data": self.plan.recipe.data.train,
        }

    def _values(self, name: str) -> dict[str, Any]:
        chosen = next(t["chosen"] for t in self._numbered().values() if t["candidate"] == name)
        return self.plan.recipe_with(chosen)


def _slug(number: int) -> str:
    return f"trial-{number:03d}"
