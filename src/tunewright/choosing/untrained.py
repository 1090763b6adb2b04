"""The baselines of a comparison: answers of what wasn't tuned, had once, kept on disk, and ready for the board.

Labels: never reading the text, and counting its words. Writing: each base as it is, and with examples in its prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunewright.choosing.board import Entry, baseline_entry, keep_baseline
from tunewright.choosing.rows import LIKELIHOODS, ComparedRows
from tunewright.choosing.work import Job, Result, Tell
from tunewright.planning import baselines
from tunewright.planning.trials import short_name

Say = Callable[[str], None]


def counting(rows: ComparedRows, folder: Path, seed: int, tell: Tell, say: Say) -> list[Entry]:
    """Majority, and TF-IDF with a linear model; nothing where the model writes."""
    own, kind = rows.train, rows.kind
    if own is None:
        return []
    makers: dict[str, Callable[[], baselines.Baseline]] = {
        "majority": lambda: baselines.majority(own.labels, kind, rows.num_outputs, rows.num_judged),  # type: ignore[arg-type]
        "tfidf": lambda: baselines.tfidf(
            own.texts, own.labels, own.groups, kind, rows.judged_texts, seed, rows.num_outputs,  # type: ignore[arg-type]
        ),
    }  # fmt: skip
    if not baselines.has_sklearn():
        del makers["tfidf"]
        say(baselines.MISSING)
    found: list[Entry] = []
    for name, make in makers.items():
        path = folder / "baselines" / f"{name}.json"
        if not path.exists():
            tell(f"baseline: {name}")
            made = make()
            keep_baseline(path, made.name, made.costs, logits=made.logits, said=made.said)
        found.append(baseline_entry(path, rows))
    return found


def prompting(
    rows: ComparedRows,
    folder: Path,
    models: Mapping[str, tuple[str, Path]],
    shots: int,
    do: Callable[[Job, str], Result],
    say: Say,
) -> list[Entry]:
    """Each base as it is, and with `shots` examples in the prompt; nothing where answers aren't judged.

    `models`: model -> (its part of a file's name, a recipe of the comparison for it).
    """
    if not rows.references or rows.metric in LIKELIHOODS:
        return []
    found: list[Entry] = []
    for model, (slug, recipe) in models.items():
        paths = {count: folder / "baselines" / f"{slug}-{count}-examples.json" for count in dict.fromkeys((0, shots))}
        if not all(path.exists() for path in paths.values()):
            result = do(Job("prompt", str(recipe), str(folder), shots=shots), f"baseline: {short_name(model)}: ")
            result.raise_error()
            _keep(short_name(model), paths, dict(result.found or {}))
        found += [baseline_entry(path, rows) for path in paths.values()]
        if (fewer := _examples(found[-1].name)) < shots:
            say(f"{short_name(model)}: only {fewer} of {shots} examples fit into the prompt of every row")
    return found


def _keep(name: str, paths: Mapping[int, Path], answers: Mapping[str, Any]) -> None:
    for count, path in paths.items():
        made = answers[str(count)]
        named = f"{name}, {made['shots']} examples in the prompt" if count else f"{name} as it is"
        keep_baseline(path, named, made["costs"], answers=made["answers"], ended=made["ended"])


def _examples(name: str) -> int:
    """How many are in a prompt, as its name says."""
    words = name.rpartition(", ")[2].split()
    return int(words[0]) if words[0].isdigit() else 0
