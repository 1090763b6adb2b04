"""IMDB reviews with the packaged MiniLM: tunewright beside the Hugging Face Trainer, on the same rows, in one call.

    python benchmarks/imdb.py ratios   --data DIR   200 + 200 rows, alternating repeats of ours and the peers
    python benchmarks/imdb.py full     --data DIR   all rows, the article's hyperparameters, three seeds, ours and tuned
    python benchmarks/imdb.py defaults --data DIR   `tunewright train FILE --model minilm` as a person types it, 3 seeds
    python benchmarks/imdb.py curve    --data DIR --target 0.85    seconds until the validation accuracy is reached
    python benchmarks/imdb.py shape    --data DIR   DistilBERT's shape with random weights, for speed alone

DIR holds imdb_train.jsonl and imdb_validation.jsonl (`text`, `label`: positive or negative). Every figure is of a whole
process: seconds by the clock from its start to its end, and the most memory it ever held. Needs a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# The article's hyperparameters, in our words; warm-up off and no score of the untrained model, as in its script.
ARTICLE = [
    "trainable.rank=4", "trainable.alpha=32", "trainable.dropout=0.01", "trainable.targets=[query]",
    "training.learning_rate=1e-3", "training.batch_size=4", "training.weight_decay=0.01", "training.warmup_fraction=0",
    "data.max_length=512", "evaluation.before=false",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["ratios", "full", "defaults", "curve", "shape"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--target", type=float, default=0.85)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--settings", nargs="*", default=[], help="recipe overrides for ratios, defaults and curve")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder), options.data)
        print(json.dumps({"what": options.what, "date": datetime.now().isoformat(timespec="minutes"), **machine()}))
        {"ratios": ratios, "full": full, "defaults": defaults, "curve": curve, "shape": shape}[options.what](
            work, options
        )


class Work:
    """A folder to run in, and the rows to run on."""

    def __init__(self, folder: Path, data: Path):
        self.folder = folder
        self.train, self.validation = data / "imdb_train.jsonl", data / "imdb_validation.jsonl"

    def first(self, rows: int) -> Work:
        """The same with only the first rows of each file."""
        for path in (self.train, self.validation):
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[:rows]
            (self.folder / path.name).write_text("".join(lines), encoding="utf-8")
        return Work(self.folder, self.folder)

    def ours(self, settings: list[str], model: str = "minilm", seed: int = 42) -> dict[str, Any]:
        """Train with the command; the tokenised rows are never reused."""
        overrides = [word for s in [*settings, f"training.seed={seed}"] for word in ("-s", s)]
        command = [
            sys.executable, "-m", "tunewright", "train", str(self.train), "--validation", str(self.validation),
            "--model", model, "--runs", str(self.folder / "runs"), "--json", *overrides,
        ]  # fmt: skip
        cache = tempfile.mkdtemp(dir=self.folder)
        result = measured(command, self.folder, {"TUNEWRIGHT_CACHE": cache})
        run = self.folder / "runs" / result.pop("output")["run"]
        summary = json.loads((run / "run.json").read_text())
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        started = result.pop("started")
        points = [
            {
                "seconds": round(datetime.fromisoformat(r["time"]).timestamp() - started, 1),
                "epoch": r["epoch"],
                "accuracy": r["validation/accuracy"],
            }
            for r in rows
            if "validation/accuracy" in r
        ]
        return {
            "who": "tunewright", "seed": seed, **result, "epochs": points, "accuracy": summary["metrics"]["accuracy"],
            "train_tokens_per_second": summary["tokens_per_second"],
        }  # fmt: skip

    def peer(self, style: str, *, epochs: int = 1, seed: int = 42, extra: tuple[str, ...] = ()) -> dict[str, Any]:
        """Train with the Trainer."""
        from tunewright.models.packaged import locate

        command = [
            sys.executable, str(HERE / "peer_trainer.py"), "--style", style, "--train", str(self.train),
            "--validation", str(self.validation), "--epochs", str(epochs), "--seed", str(seed),
            "--output", tempfile.mkdtemp(dir=self.folder),
            *(extra or ("--model", str(locate("minilm")))),
        ]  # fmt: skip
        cache = tempfile.mkdtemp(dir=self.folder)
        result = measured(command, self.folder, {"HF_DATASETS_CACHE": cache})
        output = result.pop("output")
        result.pop("started")
        points = output["epochs"]
        return {"who": f"trainer-{style}", "seed": seed, **result, "epochs": points, "accuracy": points[-1]["accuracy"]}


def measured(command: list[str], folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Seconds and peak memory of a whole process, and the JSON object on the last line of its output."""
    begin, started = time.perf_counter(), time.time()
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **environment}
    )
    assert process.stdout is not None
    output = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    body = last_object(output)
    return {
        "seconds": round(seconds, 1),
        "peak_gb": round(usage.ru_maxrss / 1e6, 2),
        "started": started,
        "output": body,
    }


def last_object(output: str) -> dict[str, Any]:
    """The JSON object that ends a process's output; the Trainer prints dictionaries of its own before it."""
    lines = output.splitlines(keepends=True)
    for start in reversed([i for i, line in enumerate(lines) if line.startswith("{")]):
        try:
            return json.loads("".join(lines[start:]))
        except ValueError:
            continue
    raise SystemExit("no JSON object in the output")


def ratios(work: Work, options: argparse.Namespace) -> None:
    """Ours, the article's script and the tuned one (in fp32 and bf16) in turn, on 200 + 200 rows."""
    small = work.first(200)
    rows: dict[str, list[dict[str, Any]]] = {"ours": [], "tuned": [], "tuned-bf16": [], "article": []}
    for repeat in range(options.repeats):
        for name, run in (
            ("ours", lambda: small.ours([*ARTICLE, "training.epochs=1", *options.settings])),
            *((style, lambda style=style: small.peer(style)) for style in list(rows)[1:]),
        ):
            rows[name].append(run())
            print(json.dumps({"repeat": repeat, **rows[name][-1]}), flush=True)
    for name in list(rows)[1:]:
        pairs = [peer["seconds"] / our["seconds"] for our, peer in zip(rows["ours"], rows[name], strict=True)]
        memory = [peer["peak_gb"] / our["peak_gb"] for our, peer in zip(rows["ours"], rows[name], strict=True)]
        print(json.dumps({"against": name, "times_faster": summary(pairs), "times_less_memory": summary(memory)}))


def full(work: Work, options: argparse.Namespace) -> None:
    """All rows, the article's hyperparameters, one epoch with its evaluation."""
    rows: dict[str, list[dict[str, Any]]] = {"ours": [], "tuned": []}
    for seed in range(options.repeats):
        rows["ours"].append(work.ours([*ARTICLE, "training.epochs=1"], seed=seed))
        print(json.dumps(rows["ours"][-1]), flush=True)
        rows["tuned"].append(work.peer("tuned", seed=seed))
        print(json.dumps(rows["tuned"][-1]), flush=True)
    for name, runs in rows.items():
        print(json.dumps({
            "who": name,
            "accuracy": summary([r["accuracy"] for r in runs]),
            "seconds": summary([r["seconds"] for r in runs]),
            "peak_gb": summary([r["peak_gb"] for r in runs]),
        }))  # fmt: skip


def defaults(work: Work, options: argparse.Namespace) -> None:
    """What a person gets who names no setting."""
    runs = []
    for seed in range(options.repeats):
        runs.append(work.ours(options.settings, seed=seed))
        print(json.dumps(runs[-1]), flush=True)
    print(json.dumps({
        "who": "defaults",
        "accuracy": summary([r["accuracy"] for r in runs]),
        "seconds": summary([r["seconds"] for r in runs]),
    }))  # fmt: skip


def curve(work: Work, options: argparse.Namespace) -> None:
    """Seconds from the start of the process to the first evaluation at or above the target."""
    settings = ["evaluation.before=false", *options.settings]
    for seed in range(options.repeats):
        run = work.ours(settings, seed=seed)
        reached = next((p["seconds"] for p in run["epochs"] if p["accuracy"] >= options.target), None)
        print(json.dumps({**run, "target": options.target, "seconds_to_target": reached}), flush=True)


def shape(work: Work, options: argparse.Namespace) -> None:
    """DistilBERT's shape (66 M parameters, random weights) on 48 + 48 rows: speed alone."""
    from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel

    from tunewright.models.packaged import locate

    small = work.first(48)
    folder = work.folder / "distilbert-shape"
    DistilBertModel(DistilBertConfig()).save_pretrained(folder)
    AutoTokenizer.from_pretrained(locate("minilm")).save_pretrained(folder)
    settings = [s.replace("[query]", "[q_lin]") for s in ARTICLE]
    for repeat in range(options.repeats):
        ours = small.ours([*settings, "training.epochs=1"], model=str(folder))
        print(json.dumps({"repeat": repeat, **ours}), flush=True)
        for style in ("tuned", "article"):
            peer = small.peer(style, extra=("--model", str(folder), "--targets", "q_lin"))
            print(
                json.dumps({"repeat": repeat, **peer, "ratio": round(peer["seconds"] / ours["seconds"], 2)}), flush=True
            )


def summary(values: list[float]) -> dict[str, float]:
    """Median with the extremes."""
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    from importlib.metadata import version

    import torch

    model = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), "unknown")
    names = ("torch", "transformers", "peft", "accelerate", "tunewright")
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "gemm_gflops": round(gemm_rate() / 1e9, 1),
        "versions": {name: version(name) for name in names},
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def gemm_rate(tokens: int = 2048, width: int = 384, inner: int = 1536) -> float:
    """Multiply–add FLOPs per second at the model's shapes, best of ten."""
    import torch

    a, b = torch.randn(tokens, width), torch.randn(inner, width)
    best = float("inf")
    for _ in range(11):
        begin = time.perf_counter()
        a @ b.T
        best = min(best, time.perf_counter() - begin)
    return 2 * tokens * width * inner / best


if __name__ == "__main__":
    main()
