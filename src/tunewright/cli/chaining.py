"""`tunewright train CHAIN.yaml`: the links of a chain one after the other, and what is still to be done by people.

Thin: `tunewright.chain` runs and resumes, this prints a block per link, as `train` does for a run of its own.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from tunewright.chain import Chain, Done, Link, Outcome, Ranked, Waiting, load_chain, run_chain
from tunewright.cli import output, results
from tunewright.cli.train import watching
from tunewright.errors import TunewrightError


def train_chain(path: Path, overrides: list[str], runs: Path, *, as_json: bool, quiet: bool) -> None:
    """Run what is left of a chain, and say how it ended. Raises what its runs raise."""
    chain = load_chain(path, overrides)
    outcomes: list[Outcome] = []
    with watching(quiet) as listener:
        try:
            for outcome in run_chain(chain, runs, listener, lambda link: _announce(chain, link, quiet)):
                outcomes.append(outcome)
                if not as_json:
                    _show(outcome, chain, runs, quiet)
        except TunewrightError:
            listener.close()
            sys.stderr.write(f"to go on from here: tunewright train {shlex.quote(str(path))}\n")
            raise
    if as_json:
        output.print_json(_to_json(chain, runs, outcomes))


def _announce(chain: Chain, link: Link, quiet: bool) -> None:
    if not quiet:
        number = chain.links.index(link) + 1
        sys.stderr.write(f"\n link {number} of {len(chain.links)}: {link.name}\n")
        sys.stderr.flush()


def _show(outcome: Outcome, chain: Chain, runs: Path, quiet: bool) -> None:
    if quiet:
        if isinstance(outcome, Done):
            print(outcome.run.id)
        return
    if isinstance(outcome, Done) and outcome.now:
        run = outcome.run
        output.show(["", *results.result_lines(run.folder, run.summary, output.marks(), fit=output.width())])
    elif isinstance(outcome, Done):
        output.show([f" {outcome.link.name}: finished earlier, {outcome.run.folder}"])
    elif isinstance(outcome, Ranked):
        output.show([f" {outcome.link.name}: {outcome.comparisons:,} comparisons"])
    else:
        output.show(_waiting_lines(outcome, chain))


def _waiting_lines(waiting: Waiting, chain: Chain) -> list[str]:
    """What people have to do, as commands to paste."""
    ranking = waiting.link.ranking
    assert ranking is not None
    guidelines = f" --guidelines {shlex.quote(ranking.guidelines)}" if ranking.guidelines else ""
    return [
        f" {waiting.judged:,} of {waiting.wanted:,} judgements are there; people go on in a browser:",
        f"   tunewright rank serve {shlex.quote(ranking.store)}{guidelines}",
        " then:",
        f"   tunewright train {shlex.quote(str(chain.path))}",
    ]


def _to_json(chain: Chain, runs: Path, outcomes: list[Outcome]) -> dict[str, Any]:
    links = [_link_json(outcome) for outcome in outcomes]
    waits = any(isinstance(outcome, Waiting) for outcome in outcomes)
    return {"chain": str(chain.path), "runs": str(chain.folder(runs)), "state": "waiting" if waits else "succeeded",
            "links": links}  # fmt: skip


def _link_json(outcome: Outcome) -> dict[str, Any]:
    name = outcome.link.name
    if isinstance(outcome, Done):
        return {"link": name, **results.to_json(outcome.run.folder, outcome.run.summary)}
    if isinstance(outcome, Ranked):
        return {"link": name, "state": "succeeded", "comparisons": outcome.comparisons}
    return {"link": name, "state": "waiting", "judgements": outcome.judged, "wanted": outcome.wanted}
