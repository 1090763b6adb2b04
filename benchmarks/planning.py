"""How far `tunewright plan` is from the truth: memory and seconds of whole processes, over recipes fixed beforehand.

    python benchmarks/planning.py --data DIR [--rows 400] [--only 2] [--no-probe]

DIR holds imdb_train.jsonl and imdb_validation.jsonl. Each recipe is planned in one process and run in another, each
with an empty cache of its own; a run is measured from the start of its process to its end, with the most memory it ever
held resident. Errors are estimate / measured - 1; the last line has the medians of their absolute values. Needs a quiet
machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from imdb import machine, measured

# Methods x lengths x batch sizes, spread over the grid; chosen before the estimator's constants.
RECIPES = [
    ("full", 64, 4), ("full", 128, 32), ("full", 256, 8), ("full", 512, 4),
    ("lora", 64, 32), ("lora", 128, 8), ("lora", 256, 4), ("lora", 512, 32),
    ("last 2", 64, 8), ("last 2", 256, 32), ("last 2", 512, 4),
    ("head", 128, 4), ("head", 256, 8), ("head", 512, 32),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=400, help="rows of train, and half as many of validation")
    parser.add_argument("--only", type=int, default=len(RECIPES), help="the first so many recipes")
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--settings", nargs="*", default=[], help="overrides for all of them")
    parser.add_argument("--no-probe", action="store_true", help="arithmetic alone")
    options = parser.parse_args()
    print(json.dumps({"what": "planning", "date": datetime.now().isoformat(timespec="minutes"), **machine()}))
    with tempfile.TemporaryDirectory() as folder:
        rows = [one(Path(folder), recipe, options) for recipe in RECIPES[options.skip :][: options.only]]
    print(json.dumps({name: median(rows, name) for name in ("memory_error", "time_error", "run_memory_error")}))


def one(folder: Path, recipe: tuple[str, int, int], options: argparse.Namespace) -> dict[str, Any]:
    """Plan it, run it, compare; one printed line."""
    command = arguments(folder, recipe, options)
    planned = process(["plan", *command, *(["--no-probe"] if options.no_probe else [])], folder)["output"]
    run = process(["train", *command], folder)
    summary = json.loads((folder / "runs" / run["output"]["run"] / "run.json").read_text())
    expected, peak = planned["memory"]["peak_bytes"] / 1e9, run["peak_gb"]
    row = {
        "recipe": recipe,
        "memory_gb": [round(expected, 2), peak],
        "memory_error": round(expected / peak - 1, 3),
        "seconds": [round(planned["time"]["seconds"], 1), run["seconds"]],
        "time_error": round(planned["time"]["seconds"] / run["seconds"] - 1, 3),
        # What the run said of itself at its start.
        "run_memory_error": summary["estimate"]["measured"].get("memory_error"),
        "run_time_error": summary["estimate"]["measured"]["seconds_error"],
        "run_probed": summary["estimate"]["probed"],
        "moment": planned["memory"]["moment"],
    }
    print(json.dumps(row), flush=True)
    return row


def arguments(folder: Path, recipe: tuple[str, int, int], options: argparse.Namespace) -> list[str]:
    """Data and settings, the same for both commands."""
    method, length, batch = recipe
    trainable = (
        ["trainable.method=lora", "trainable.layers=last 2"] if method == "last 2" else [f"trainable.method={method}"]
    )
    settings = [*trainable, f"data.max_length={length}", f"training.batch_size={batch}", "training.epochs=1"]
    files = [part(folder, options, "train", options.rows), part(folder, options, "validation", options.rows // 2)]
    overrides = [word for setting in [*settings, *options.settings] for word in ("-s", setting)]
    return [str(files[0]), "--validation", str(files[1]), "--runs", str(folder / "runs"), "--json", *overrides]


def part(folder: Path, options: argparse.Namespace, name: str, rows: int) -> Path:
    """The first rows of a file."""
    path = folder / f"{name}.jsonl"
    if not path.exists():
        lines = (options.data / f"imdb_{name}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(lines[:rows]), encoding="utf-8")
    return path


def process(command: list[str], folder: Path) -> dict[str, Any]:
    """Seconds, peak memory and JSON object of one command, with an empty cache."""
    cache = tempfile.mkdtemp(dir=folder)
    return measured([sys.executable, "-m", "tunewright", *command], folder, {"TUNEWRIGHT_CACHE": cache})


def median(rows: list[dict[str, Any]], name: str) -> float | None:
    values = [abs(row[name]) for row in rows if row[name] is not None]
    return round(statistics.median(values), 3) if values else None


if __name__ == "__main__":
    main()
