"""`models try` on IMDB as a person types it: the table, the time it took, and whether kills leave a trace.

    python benchmarks/choosing.py try   --data DIR            MiniLM, head, lora and full, 3 seeds, TF-IDF, 20 minutes
    python benchmarks/choosing.py bases --data DIR            MiniLM, MiniLM after `task: continue` on reviews, Gemma
    python benchmarks/choosing.py kill  --data DIR --rows 150 killed twice (SIGKILL), against one that was left alone

DIR holds imdb_train.jsonl and imdb_validation.jsonl (`text`, `label`). `--rows N` takes the first N of each. The bar:
the whole of `try` in under 25 minutes on two quiet cores, and a head in seconds once the first one has been trained.
Prints a JSON object per measurement; figures are of whole processes by the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from imdb import machine  # noqa: E402

BAR_MINUTES = 25.0
MEASURED = ("costs", "folder", "runs", "best", "cheaper", "report", "facts", "notes")  # other paths, other seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["try", "bases", "kill"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", default="20m")
    parser.add_argument("--settings", nargs="*", default=[], help="recipe overrides")
    options = parser.parse_args()
    print(json.dumps({"what": options.what, **machine()}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        files = first_rows(options.data, options.rows, Path(folder))
        {"try": methods, "bases": bases, "kill": kills}[options.what](files, options, Path(folder))


def first_rows(data: Path, rows: int | None, folder: Path) -> tuple[Path, Path]:
    """Both files, or copies of their first rows."""
    found = []
    for name in ("imdb_train.jsonl", "imdb_validation.jsonl"):
        path = data / name
        if rows is not None:
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[:rows]
            path = folder / name
            path.write_text("".join(lines), encoding="utf-8")
        found.append(path.resolve())
    return found[0], found[1]


def command(files: tuple[Path, Path], options: argparse.Namespace, *more: str) -> list[str]:
    settings = [word for setting in options.settings for word in ("-s", setting)]
    return [sys.executable, "-m", "tunewright", "models", "try", str(files[0]), "--validation", str(files[1]),
            "--seeds", str(options.seeds), "--budget", options.budget, *settings, *more]  # fmt: skip


def timed(words: list[str], folder: Path) -> tuple[dict[str, Any], float]:
    """The JSON object of a command that ends well, and its seconds."""
    begin = time.perf_counter()
    done = subprocess.run([*words, "--json"], cwd=folder, stdout=subprocess.PIPE, text=True, env=environment())
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(words)}")
    return json.loads(done.stdout), time.perf_counter() - begin


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")])}


def shown(found: dict[str, Any]) -> None:
    for row in found["rows"]:
        print(json.dumps({key: row[key] for key in ("name", "value", "interval", "seeds", "seed_deviation", "behind",
                                                    "p_value", "costs")}))  # fmt: skip


def methods(files: tuple[Path, Path], options: argparse.Namespace, folder: Path) -> None:
    """The bar: one command, all methods, in time."""
    found, seconds = timed(command(files, options, "--models", "minilm", "--methods", "head,lora,full"), folder)
    shown(found)
    heads = [seconds_of_run(folder / "runs" / f"{files[0].stem}-try" / run) for run in found["runs"]["minilm head"]]
    print(json.dumps({"minutes": round(seconds / 60, 2), "in_time": seconds < 60 * BAR_MINUTES,
                      "head_seconds": heads, "expected_of_best": found["expected_of_best"],
                      "tokens": found["facts"]["tokens"], "epochs": found["facts"]["epochs"]}))  # fmt: skip


def seconds_of_run(run: Path) -> float:
    return json.loads((run / "run.json").read_text())["seconds"]


def bases(files: tuple[Path, Path], options: argparse.Namespace, folder: Path) -> None:
    """Three bases, one of them made here: what a newcomer gets from one command."""
    words = [sys.executable, "-m", "tunewright", "train", str(files[0]), "--task", "continue", "--model", "minilm",
             "--text", "text", "--name", "adapted", "-s", "trainable.method=full", "--json"]  # fmt: skip
    _, seconds = timed(words[:-1], folder)
    print(json.dumps({"adapted_minutes": round(seconds / 60, 2)}), flush=True)
    models = "minilm,run:adapted,gemma3-270m"
    found, seconds = timed(command(files, options, "--models", models, "--methods", "head,lora"), folder)
    shown(found)
    print(json.dumps({"minutes": round(seconds / 60, 2), "left": found["left"], "expected": found["expected_of_best"]}))


def kills(files: tuple[Path, Path], options: argparse.Namespace, folder: Path) -> None:
    """The same comparison alone, and killed twice: a third and two thirds of the way."""
    options.budget = "none"  # minutes become tokens by measuring, and no two measurements are equal
    alone, killed = folder / "alone", folder / "killed"
    alone.mkdir()
    killed.mkdir()
    words = command(files, options, "--models", "minilm", "--methods", "head,lora")
    expected, seconds = timed(words, alone)
    for _ in range(2):
        process = subprocess.Popen(words, cwd=killed, stdout=subprocess.DEVNULL, env=environment())
        time.sleep(seconds / 3)
        process.send_signal(signal.SIGKILL)
        process.wait()
    found, _ = timed(words, killed)
    same = without_times(found) == without_times(expected)
    shown(found)
    print(json.dumps({"seconds_alone": round(seconds, 1), "kills": 2, "the_same_board": same}))
    if not same:
        raise SystemExit("a kill left a trace")


def without_times(found: dict[str, Any]) -> dict[str, Any]:
    rows = [{key: item for key, item in row.items() if key != "costs"} for row in found["rows"]]
    return {key: item for key, item in found.items() if key not in MEASURED} | {"rows": rows}


if __name__ == "__main__":
    main()
