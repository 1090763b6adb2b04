"""Alignment, measured: does PPO do what it promises, at what cost, and how fast beside a straightforward loop?

    python benchmarks/align.py movies --data DIR [--iterations 40] [--settings …]
    python benchmarks/align.py speed --data DIR --reward RUN_FOLDER [--repeats 3]

DIR is what `examples/instructgpt/prepare.py` wrote. `movies` runs the chain of examples/instructgpt/movies.yaml and
prints what its run says: probability of "positive" on held-out prompts before and after, by the reward and by a judge
that training never asked, KL, perplexity, repetition, and ten samples. `speed` gives ours and the peers (`peer_ppo.py`)
the same iterations, one process each in turn: seconds per iteration, completions per second, peak memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from imdb import machine, measured, summary

HERE = Path(__file__).parent
CHAIN = HERE.parent / "examples" / "instructgpt" / "movies.yaml"
STYLES = ("plain", "tuned", "tuned-bf16")
COMPLETIONS, NEW_TOKENS, RANK = 32, 24, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["movies", "speed"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, help="movies: where the runs stay")
    parser.add_argument("--reward", type=Path, help="speed: model folder of the reward's run")
    parser.add_argument("--iterations", type=int, default=3, help="speed")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--styles", nargs="+", default=list(STYLES))
    parser.add_argument("--settings", nargs="*", default=[], help="more of the recipes: align.kl_coef=0.1")
    options = parser.parse_args()
    head = {"what": f"align {options.command}", "date": datetime.now().isoformat(timespec="minutes"), **machine()}
    print(json.dumps({**head, "threads": options.threads}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        {"movies": movies, "speed": speed}[options.command](Path(folder), options)


def movies(folder: Path, options: argparse.Namespace) -> None:
    """The chain as a person runs it."""
    (folder / "movies.yaml").write_text(
        CHAIN.read_text(encoding="utf-8").replace("data/", f"{options.data.resolve()}/")
    )
    runs = options.runs or folder / "runs"
    overrides = [word for setting in options.settings for word in ("-s", setting)]
    command = [sys.executable, "-m", "tunewright", "train", str(folder / "movies.yaml"), "--runs", str(runs), "--json"]
    found = measured([*command, *overrides], folder, {})
    for link in found.pop("output")["links"]:
        if link["link"] != "ppo":
            print(json.dumps({"link": link["link"], "metrics": link["metrics"]}), flush=True)
            continue
        kept = ("metrics", "intervals", "comparison", "forgetting")
        print(json.dumps({"link": "ppo", **{name: link.get(name) for name in kept}}), flush=True)
        for row in link["prompts"][:10]:
            print(json.dumps({"prompt": row["prompt"], "before": row["before"], "after": row["after"]}), flush=True)
    print(json.dumps({"whole chain": found["seconds"], "peak_gb": found["peak_gb"]}), flush=True)


def speed(folder: Path, options: argparse.Namespace) -> None:
    """Every side in turn, then how many times faster and smaller ours was."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for repeat in range(options.repeats):
        sides = {f"tunewright-{precision}": ours(folder, options, precision) for precision in ("fp32", "bf16")}
        sides |= {style: peer(folder, options, style) for style in options.styles}
        for who, found in sides.items():
            runs.setdefault(who, []).append(found)
            print(json.dumps({"who": who, "repeat": repeat, **found}), flush=True)
    for mine in ("tunewright-fp32", "tunewright-bf16"):
        for style in options.styles:
            pairs = list(zip(runs[mine], runs[style], strict=True))
            print(json.dumps({
                "ours": mine,
                "against": style,
                "times_faster": summary([b["iteration"] / a["iteration"] for a, b in pairs]),
                "times_faster_sampling": summary([b["sampling"] / a["sampling"] for a, b in pairs]),
                "memory_share": summary([a["peak_gb"] / b["peak_gb"] for a, b in pairs]),
            }), flush=True)  # fmt: skip


def ours(folder: Path, options: argparse.Namespace, precision: str) -> dict[str, Any]:
    """The command, judged as little as it lets itself be; seconds from the rows that it logs."""
    work = Path(tempfile.mkdtemp(dir=folder))
    held_out = work / "held_out.jsonl"
    held_out.write_text((options.data / "prompts_validation.jsonl").read_text().split("\n")[0] + "\n")
    recipe = {
        "task": "align",
        "model": "gemma3-270m",
        "data": {"train": str((options.data / "prompts_train.jsonl").resolve()), "validation": str(held_out)},
        "trainable": {"rank": RANK},
        "training": {
            "max_steps": options.iterations, "batch_size": COMPLETIONS, "learning_rate": 3e-4, "precision": precision,
            "threads": options.threads,
        },
        "reward": {"classifier": str(options.reward.resolve()), "label": "positive"},
        "evaluation": {"before": False, "retain": "none", "generate_rows": 1, "max_new_tokens": NEW_TOKENS},
    }  # fmt: skip
    (work / "recipe.yaml").write_text(json.dumps(recipe))
    command = [sys.executable, "-m", "tunewright", "train", str(work / "recipe.yaml"), "--runs", str(work), "--json"]
    found = measured(command, work, {})
    run = work / found["output"]["run"]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "ppo/score" in row]
    ends = [datetime.fromisoformat(row["time"]).timestamp() for row in rows]
    apart = [later - earlier for earlier, later in itertools.pairwise(ends)]
    sampling = [COMPLETIONS / row["ppo/completions_per_second"] for row in rows[1:]]
    return {"iteration": round(statistics.median(apart), 2), "sampling": round(statistics.median(sampling), 2),
            "score": [round(row["ppo/score"], 3) for row in rows], "peak_gb": found["peak_gb"]}  # fmt: skip


def peer(folder: Path, options: argparse.Namespace, style: str) -> dict[str, Any]:
    """The first iteration, in which libraries warm up, isn't counted on either side."""
    from sft import packaged

    command = [
        sys.executable, str(HERE / "peer_ppo.py"), "--style", style, "--model", str(packaged()), "--reward",
        str(options.reward.resolve()), "--prompts", str((options.data / "prompts_train.jsonl").resolve()),
        "--iterations", str(options.iterations), "--threads", str(options.threads), "--rank", str(RANK),
    ]  # fmt: skip
    found = measured(command, folder, {})
    body = found["output"]
    return {"iteration": statistics.median(body["seconds"][1:]), "sampling": statistics.median(body["sampling"][1:]),
            "score": body["score"], "first_ratio": body["first_ratio"], "peak_gb": found["peak_gb"]}  # fmt: skip


if __name__ == "__main__":
    main()
