"""Trials brought to their end: found finished, resumed, or begun, each by a worker, each written down in the ledger.

What `trying` and `searching` share. A trial that diverges, or whose model comes to nothing, is written down as failed
and the others go on; any other error ends the comparison, for it would end the next trial too.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.choosing.ledger import Ledger, run_of
from tunewright.choosing.work import SPEED, Job, Result, Tell, course_of
from tunewright.choosing.workers import Wish, Workers
from tunewright.errors import DivergedError, ModelError, StoppedError
from tunewright.runs import read_summary

SHARED = "features"  # what frozen layers give, kept while the comparison lasts
OWN_FAULT = (DivergedError.code, ModelError.code)  # of a trial's settings, not of what all trials share


@dataclass(frozen=True)
class TrialPlan:
    """A trial that is to be run."""

    name: str  # of its run
    candidate: str  # what it is a trial of, as the board names it
    recipe: Path
    facts: dict[str, Any]  # for the ledger: seed, steps, values …


@dataclass(frozen=True)
class Ended:
    """How far it came."""

    state: str  # succeeded, paused, poor, failed
    run: Path | None = None
    why: str = ""  # of a failed one


@dataclass
class Crew:
    """All that a trial needs to be run in a comparison's folder."""

    folder: Path
    workers: Workers
    tell: Tell
    wish: Wish
    ledger: Ledger
    metric: str
    higher_is_better: bool

    @property
    def runs(self) -> Path:
        """Where the trials lie: apart from the ledger, for a run that begins tidies its folder."""
        return self.folder / "runs"

    def train(
        self,
        trial: TrialPlan,
        words: str,
        *,
        pause_after: int | None = None,
        every: int = 1,
        limits: Sequence[tuple[float, float]] = (),
    ) -> Ended:
        """Bring it to its end, or to its evaluation number `pause_after`, one each `every` steps."""
        known = self.ledger.trial(trial.name)
        if known.get("state") == "failed":
            return Ended("failed", why=known["error"]["message"])
        run = run_of(trial.name, self.runs, lambda said: self.tell(words + said))
        if run is not None and (state := self._reached(run, known, pause_after)):
            return Ended(state, run)
        self.ledger.put_trial(trial.name, candidate=trial.candidate, state="running", **trial.facts)
        job = Job(
            "train", str(trial.recipe), str(self.runs), resume=run.name if run else None,
            shared=str(self.folder / SHARED), pause_at=pause_after * every if pause_after else None,
            limits=tuple(limits), higher_is_better=self.higher_is_better,
        )  # fmt: skip
        return self._ended(trial.name, self.do(job, words))

    def do(self, job: Job, words: str) -> Result:
        """One piece of work. A wish to stop is raised once it has saved."""
        self.wish.check()
        self.tell(words.rstrip(": "))
        result = self.workers.do(job, lambda said: self.tell(words + said))
        self.wish.check()
        if result.state == "stopped":
            result.raise_error()
            raise StoppedError("a trial was stopped; start the same command again to go on")
        return result

    def folders(self) -> dict[str, list[str]]:
        """Candidate -> the folders of its trials, seen from the comparison's."""
        found: dict[str, list[str]] = {}
        for trial in self.ledger.trials.values():
            if trial.get("run"):
                found.setdefault(trial["candidate"], []).append(f"{self.runs.name}/{trial['run']}")
        return found

    def failed(self) -> dict[str, str]:
        """Candidate -> why a trial of it came to nothing."""
        return {t["candidate"]: t["error"]["message"] for t in self.ledger.trials.values() if t["state"] == "failed"}

    # ---- parts ----

    def _reached(self, run: Path, known: dict[str, Any], pause_after: int | None) -> str | None:
        """The state of a run that is as far as it is wanted."""
        if read_summary(run).get("state") == "succeeded":
            return "succeeded" if (run / SPEED).exists() else None
        if known.get("state") == "poor":
            return "poor"
        return "paused" if pause_after and len(course_of(run, self.metric)) == pause_after else None

    def _ended(self, name: str, result: Result) -> Ended:
        if result.error is not None:
            if result.error["code"] not in OWN_FAULT:
                result.raise_error()
            self.ledger.put_trial(name, state="failed", error=dict(result.error))
            return Ended("failed", why=str(result.error["message"]))
        run = run_of(name, self.runs)
        assert run is not None
        if result.state == "succeeded":
            shutil.rmtree(run / "checkpoints", ignore_errors=True)  # nothing goes on from there
        self.ledger.put_trial(name, state=result.state, run=run.name)
        return Ended(result.state, run)
