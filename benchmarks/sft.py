"""A language model tuned to write: tunewright beside TRL's SFTTrainer on the same rows, and what tuning brings.

    python benchmarks/sft.py ratios  --data DIR --trl PYTHON [--rows 48] [--repeats 3]
    python benchmarks/sft.py quality --data DIR [--only questions] [--epochs 2]

DIR holds squad_*.jsonl (questions, short answers), instructions_*.jsonl (long answers), summaries_*.jsonl and
wikipedia.txt. PYTHON is an interpreter that has trl, which is no part of the project. The base is the packaged
Gemma-3 270M unless --model names a folder.

ratios: LoRA of rank 8 on every linear layer, fp32, the same rows, epoch, batch, learning rate, schedule and LoRA scale
on all sides, one process each in turn (`peer_sft.py` says what the styles of TRL are). Each trains, scores the
validation rows once and saves. Real tokens (padding not counted) per second of training; seconds and peak memory of the
whole process. `loss` is the validation loss of the saved adapters, computed for all sides by plain transformers and
PEFT.

quality: whole runs of the command, base and result judged on the same validation rows. Needs a quiet machine and hours.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from imdb import machine, measured, summary

from tunewright.data.examples import Row
from tunewright.data.templates import Template, value_text

HERE = Path(__file__).parent
PEER = str(HERE / "peer_sft.py")
BATCH, RANK, RATE, MAX_LENGTH = 8, 8, 2e-4, 1024
TUNED = ["grouped", "padding-free", "packed"]  # the fastest of them is "tuned" in the last lines


@dataclass(frozen=True)
class Data:
    """A kind of data, as files and as a built-in template."""

    files: str
    template: str


DATA = {"questions": Data("squad", "question-answer"), "instructions": Data("instructions", "alpaca")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["ratios", "quality"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="folder of a base; default: the packaged Gemma-3 270M")
    parser.add_argument("--trl", help="Python that has trl")
    parser.add_argument("--rows", type=int, help="ratios: training rows (48); quality: all")
    parser.add_argument("--validation-rows", type=int, help="ratios: 24; quality: all")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--styles", nargs="+", default=["default", *TUNED])
    parser.add_argument("--only", nargs="+", help="of the data (ratios) or the runs (quality)")
    parser.add_argument("--epochs", type=float, default=2, help="quality")
    parser.add_argument("--settings", nargs="*", default=[], help="more of the recipe: training.learning_rate=1e-3")
    options = parser.parse_args()
    if options.command == "ratios" and not options.trl:
        parser.error("ratios needs --trl PYTHON: an interpreter that has trl")
    options.model = (options.model or packaged()).resolve()
    head = {"what": f"sft {options.command}", "date": datetime.now().isoformat(timespec="minutes"), **machine()}
    print(json.dumps({**head, "threads": options.threads}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        {"ratios": ratios, "quality": quality}[options.command](Path(folder), options)


def packaged() -> Path:
    """The folder of the packaged base, which is made on the first call."""
    from tunewright.models.gguf import open_gguf

    cache = Path(os.environ.get("TUNEWRIGHT_CACHE") or Path.home() / ".cache" / "tunewright")
    return open_gguf("gemma3-270m", cache / "gguf")


# ---- ratios ----


def ratios(folder: Path, options: argparse.Namespace) -> None:
    """Every side in turn, then how many times faster and smaller ours was."""
    for name in options.only or DATA:
        work = Work.of(folder / name, DATA[name], options)
        runs: dict[str, list[dict[str, Any]]] = {}
        for repeat in range(options.repeats):
            found = [work.ours(repeat), *(work.peer(style, repeat) for style in options.styles)]
            work.judge(found)
            for run in found:
                runs.setdefault(run["who"], []).append(run)
                print(json.dumps({"data": name, "repeat": repeat, **run}), flush=True)
        compare(name, runs)


def compare(name: str, runs: dict[str, list[dict[str, Any]]]) -> None:
    """A line for each peer, and one for the fastest of the tuned."""
    ours = runs.pop("tunewright")
    lines = {who: against(ours, peers) for who, peers in runs.items()}
    for who, line in lines.items():
        print(json.dumps({"data": name, "against": who, **line}), flush=True)
    tuned = [who for who in lines if who.removeprefix("trl-") in TUNED]
    if tuned:
        hardest = min(tuned, key=lambda who: lines[who]["times_faster"]["median"])
        print(
            json.dumps({"data": name, "against": "the fastest tuned", "which": hardest, **lines[hardest]}), flush=True
        )


def against(ours: list[dict[str, Any]], peers: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the ratios, pair by pair: above 1 ours is faster, below 1 it is smaller."""
    pairs = list(zip(ours, peers, strict=True))
    return {
        "times_faster": summary([our["tokens_per_second"] / peer["tokens_per_second"] for our, peer in pairs]),
        "whole_process_times_faster": summary([peer["seconds"] / our["seconds"] for our, peer in pairs]),
        "share_of_memory": summary([our["peak_gb"] / peer["peak_gb"] for our, peer in pairs]),
        "loss_difference": summary([our["loss"] - peer["loss"] for our, peer in pairs]),
    }


@dataclass(frozen=True)
class Work:
    """Rows to train on, as they are for us and as prompt and completion for the peers."""

    folder: Path
    data: Data
    options: argparse.Namespace

    @classmethod
    def of(cls, folder: Path, data: Data, options: argparse.Namespace) -> Work:
        folder.mkdir(parents=True)
        wanted = {"train": options.rows or 48, "validation": options.validation_rows or 24}
        for split, count in wanted.items():
            lines = first(options.data / f"{data.files}_{split}.jsonl", count)
            rows = [json.loads(line) for line in lines]
            write(folder / f"{split}.jsonl", lines)
            write(folder / f"{split}-rendered.jsonl", [json.dumps(pair) for pair in rendered(rows, data.template)])
        return cls(folder, data, options)

    def ours(self, seed: int) -> dict[str, Any]:
        recipe = {
            "task": "generate", "model": str(self.options.model), "name": f"ours-{seed}",
            "data": {
                "train": str(self.folder / "train.jsonl"), "validation": str(self.folder / "validation.jsonl"),
                "template": self.data.template, "max_length": MAX_LENGTH,
            },
            "trainable": {"method": "lora", "rank": RANK, "alpha": 2 * RANK},
            "training": {
                "epochs": 1, "batch_size": BATCH, "learning_rate": RATE, "schedule": "linear", "warmup_fraction": 0,
                "weight_decay": 0.01, "precision": "fp32", "threads": self.options.threads, "seed": seed,
            },
            # what TRL does, no more: no answers written, the base not scored
            "evaluation": {"before": False, "generate_rows": 0, "max_new_tokens": 1, "retain": "none"},
        }  # fmt: skip
        found, run = train(recipe, self.folder, self.options.settings)
        summary_of_run = json.loads((run / "run.json").read_text())
        tokens, seconds = summary_of_run["train_tokens_seen"], training_seconds(run)
        return {
            "who": "tunewright", **found, "train_seconds": round(seconds, 2), "train_tokens": tokens,
            "tokens_per_second": round(tokens / seconds, 1), "own_loss": summary_of_run["metrics"]["loss"],
            "adapter": str(run / "model"),
        }  # fmt: skip

    def peer(self, style: str, seed: int) -> dict[str, Any]:
        output = Path(tempfile.mkdtemp(dir=self.folder))
        command = [
            self.options.trl, PEER, "train", "--style", style, "--model", str(self.options.model),
            "--train", str(self.folder / "train-rendered.jsonl"), "--output", str(output),
            "--validation", str(self.folder / "validation-rendered.jsonl"), "--batch", str(BATCH), "--rank", str(RANK),
            "--learning-rate", str(RATE), "--max-length", str(MAX_LENGTH), "--seed", str(seed),
        ]  # fmt: skip
        cache = tempfile.mkdtemp(dir=self.folder)
        environment = {"HF_DATASETS_CACHE": cache, "OMP_NUM_THREADS": str(self.options.threads)}
        result = measured(command, self.folder, environment)
        result.pop("started")
        body = result.pop("output")
        body.pop("versions")
        return {**result, **body, "adapter": str(output)}

    def judge(self, runs: list[dict[str, Any]]) -> None:
        """Give each run the validation loss that plain transformers finds for its adapter."""
        command = [
            sys.executable, PEER, "score", "--model", str(self.options.model), "--max-length", str(MAX_LENGTH),
            "--rows", str(self.folder / "validation-rendered.jsonl"),
            "--adapters", *(run.pop("adapter") for run in runs),
        ]  # fmt: skip
        cache = tempfile.mkdtemp(dir=self.folder)
        found = measured(command, self.folder, {"HF_DATASETS_CACHE": cache})["output"]["losses"]
        for run, score in zip(runs, found, strict=True):
            run["loss"] = score["loss"]


def rendered(rows: list[dict[str, Any]], template: str) -> list[dict[str, str]]:
    """Prompt and completion as text; spaces that end the prompt go to the completion, as our tokens have them."""
    made = Template.parse(template, list(rows[0]))
    pairs = []
    for number, values in enumerate(rows):
        row = Row(values, f"row {number + 1}", number)
        whole = made.prompt(row)
        prompt = whole.rstrip(" ")
        pairs.append({"prompt": prompt, "completion": whole[len(prompt) :] + value_text(row, made.completion)})
    return pairs


def training_seconds(run: Path) -> float:
    """From the word that training begins to the last row of the training curve: no scoring, no saving."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    begin = next(e["time"] for e in events if e["event"] == "state" and e["message"] == "running")
    end = [row["time"] for row in rows if "train/learning_rate" in row and not any("validation/" in k for k in row)][-1]
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()


# ---- quality ----


def quality(folder: Path, options: argparse.Namespace) -> None:
    """Whole runs: the base and the tuned model on the same rows, with intervals."""
    for name in options.only or RUNS:
        recipe = RUNS[name](folder, options)
        recipe["model"] = str(options.model)
        recipe["name"] = name
        recipe["training"] = {"epochs": options.epochs, "precision": "fp32", "threads": options.threads}
        found, run = train(recipe, folder, options.settings)
        body = json.loads((run / "run.json").read_text())
        kept = ("metrics", "intervals", "comparison", "forgetting", "tokens_per_second", "best")
        samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
        shown = [
            {key: row.get(key) for key in ("step", "prediction", "reference")}
            for row in samples
            if not row["prompt_id"]
        ]
        print(json.dumps({"run": name, **found, **{key: body.get(key) for key in kept}, "sample": shown}), flush=True)


def pairs(files: str, template: str) -> Any:
    """A recipe for prompts and completions, with every validation row answered."""

    def recipe(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
        paths = {}
        for split, count in (("train", options.rows), ("validation", options.validation_rows)):
            paths[split] = folder / f"{files}_{split}.jsonl"
            write(paths[split], first(options.data / paths[split].name, count))
        answered = len(paths["validation"].read_text().splitlines())
        data = {"train": str(paths["train"]), "validation": str(paths["validation"]), "template": template}
        if files == "squad":
            data["references"] = "answers"
        return {"task": "generate", "data": data, "evaluation": {"generate_rows": answered}}

    return recipe


def plain(method: str) -> Any:
    """A recipe for plain text: whole articles, which are lines of the file, are held out; their pieces are the rows."""

    def recipe(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
        articles = first(options.data / "wikipedia.txt", None)
        held_out = max(1, len(articles) // 8)
        split = {"train": articles[:-held_out], "validation": articles[-held_out:]}
        counts = {"train": options.rows, "validation": options.validation_rows}
        data = {}
        for name, some in split.items():
            texts = [piece for article in some for piece in pieces(article)]
            path = folder / f"wikipedia-{method}-{name}.jsonl"
            write(path, [json.dumps({"text": text}) for text in texts[: counts[name]]])
            data[name] = str(path)
        return {"task": "continue", "data": data, "trainable": {"method": method}}

    return recipe


def pieces(article: str, least: int = 1500) -> list[str]:
    """Whole sentences, as many as it takes to have so many characters; the last piece may have fewer."""
    found = [""]
    for sentence in article.replace(". ", ".\0").split("\0"):
        found = [*found, ""] if len(found[-1]) >= least else found
        found[-1] = f"{found[-1]} {sentence}".strip()
    return [piece for piece in found if piece]


RUNS = {
    "questions": pairs("squad", "question-answer"),
    "summaries": pairs("summaries", "summary"),
    "instructions": pairs("instructions", "alpaca"),
    "plain-lora": plain("lora"),
    "plain-full": plain("full"),
}


# ---- both ----


def train(recipe: dict[str, Any], folder: Path, settings: list[str]) -> tuple[dict[str, Any], Path]:
    """Run the command on a recipe, reusing nothing tokenised. Its seconds and memory, and the run's folder."""
    path = Path(tempfile.mkdtemp(dir=folder)) / "recipe.yaml"
    path.write_text(json.dumps(recipe), encoding="utf-8")
    overrides = [word for setting in settings for word in ("-s", setting)]
    command = [
        sys.executable, "-m", "tunewright", "train", str(path), "--runs", str(folder / "runs"), "--json", *overrides,
    ]  # fmt: skip
    found = measured(command, folder, {"TUNEWRIGHT_CACHE": tempfile.mkdtemp(dir=folder)})
    found.pop("started")
    return found, folder / "runs" / found.pop("output")["run"]


def first(path: Path, count: int | None) -> list[str]:
    """Lines of a file; a text may hold signs that `splitlines` takes for an end."""
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()][:count]


def write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
