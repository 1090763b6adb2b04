"""What `data check` costs: seconds and memory of every check on 100,000 rows of up to 40 words, and on templated ones.

    python benchmarks/data_check.py [--rows 100000] [--kind random|template|both] [--no-tokens]

Each measurement runs in a process of its own. Memory is the peak resident size above the process with its libraries
imported and its tokenizer loaded, which is what grows with the data. `random`: words drawn from 20,000 by a Zipf law,
one row in ten nearly the same as an earlier one, one in fifty the same. `template`: every row from one of 40 sentences
with three words changed, the worst case for finding near duplicates.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil


def random_rows(count: int) -> list[dict[str, object]]:
    draw = random.Random(0)
    words = [f"{chr(97 + i % 26)}word{i}" for i in range(20_000)]
    weights = [1 / (i + 10) for i in range(len(words))]
    drawn = draw.choices(words, weights, k=count * 41)
    rows: list[dict[str, object]] = []
    for i in range(count):
        text = drawn[41 * i : 41 * i + draw.randint(5, 40)]
        if i > 50 and i % 10 == 0:
            text = str(rows[draw.randrange(i)]["text"]).split()
            if i % 50:
                text[draw.randrange(len(text))] = "other"
        rows.append({"id": i, "text": " ".join(text), "label": draw.choice(["bad", "good"]), "source": f"site{i % 7}"})
    return rows


def template_rows(count: int) -> list[dict[str, object]]:
    draw = random.Random(1)
    words = [f"word{i}" for i in range(5_000)]
    templates = [draw.choices(words, k=30) for _ in range(40)]
    rows: list[dict[str, object]] = []
    for i in range(count):
        text = list(draw.choice(templates))
        for _ in range(3):
            text[draw.randrange(30)] = draw.choice(words)
        rows.append({"id": i, "text": " ".join(text), "label": draw.choice(["bad", "good"])})
    return rows


KINDS = {"random": random_rows, "template": template_rows}


def measure(path: str, with_tokens: bool) -> dict[str, object]:
    """In a fresh process: import, load, then measure one examination."""
    from tunewright.cli.data import _tokens
    from tunewright.data.examining import examine
    from tunewright.recipe_files import build_recipe

    warm = Path(path).with_name("warm.jsonl")
    warm.write_text("".join(json.dumps({"text": f"a b c {i}", "label": "xy"[i % 2]}) + "\n" for i in range(64)))
    recipe = build_recipe({"data": {"train": path, "text": "text", "label": "label"}})
    tokens = _tokens(recipe, insist=True)[0] if with_tokens else None
    examine(build_recipe({"data": {"train": str(warm)}}).data, 42, tokens)  # pages of libraries, not of data
    process, stop = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.02):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun, used = time.perf_counter(), time.process_time()
    report = examine(recipe.data, 42, tokens).report
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    stop.set()
    watcher.join()
    rows = report.parts["train"].rows
    found = {finding.code: finding.count for finding in report.findings}
    return {
        "rows": rows,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "bytes_per_row": round((peak - before) / rows),
        "found": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kind", choices=[*KINDS, "both"], default="both")
    parser.add_argument("--no-tokens", action="store_true", help="without counting the base model's tokens")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked.measure, not asked.no_tokens)))
        return
    for kind in KINDS if asked.kind == "both" else [asked.kind]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in KINDS[kind](asked.rows)))
            more = ["--no-tokens"] if asked.no_tokens else []
            command = [sys.executable, __file__, "--measure", str(path), *more]
            print(kind, subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
