"""Language models of 0.6 to 8 billion parameters on one GPU: tunewright beside TRL and a plain PEFT loop.

    python benchmarks/gpu.py run [--trl PYTHON] [--output FILE] [--shapes 0.6B 1.7B 4B 8B] [--methods lora full]
    python benchmarks/gpu.py run --check          the same on a toy model and the CPU: does everything start?

Weights are random, in Qwen3's shapes: speed alone. bf16, rows of exactly 4,096 tokens (`even`: nobody pads) or of 64
to 4,096 (`mixed`: packing decides), a quarter of each to be learnt. Every case is a process of its own; a case that
fails or runs out of memory is a line that says so, and the next one goes on. With --output, cases that the file has are
left out, so an interrupted call is simply repeated.

Real tokens per second over the last steps; memory as the driver sees it, the same way for all. Shares of peak follow
two conventions: `share_4n` counts 4 N FLOPs per token for LoRA and 6 N for full (N: linear layers and the head, no
attention), as published figures do; `share_computed` counts what is needed: attention too, and the head only where a
token is learnt.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PEER = str(Path(__file__).parent / "peer_sft.py")
LENGTH, SHORTEST, LEARNT = 4096, 64, 0.25
STEPS, SKIPPED = 30, 10  # measured: the 20 after the skipped, which our own clock looks back on
BF16_PEAK = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
SYSTEMS = ["tunewright", "trl-default", "trl-packed", "trl-padding-free", "peft"]


@dataclass(frozen=True)
class Shape:
    """Of a Qwen3 model."""

    width: int
    layers: int
    heads: int
    key_value_heads: int
    inner: int
    tied: bool
    head_width: int = 128
    vocabulary: int = 151_936

    @property
    def linear(self) -> int:
        """Parameters of the linear layers, the head left out."""
        attention = self.width * self.head_width * (2 * self.heads + 2 * self.key_value_heads)
        return self.layers * (attention + 3 * self.width * self.inner)

    @property
    def head(self) -> int:
        return self.vocabulary * self.width

    @property
    def parameters(self) -> int:
        """All of them, norms and embedding included."""
        norms = self.layers * (2 * self.width + 2 * self.head_width) + self.width
        return self.linear + norms + self.head * (1 if self.tied else 2)


SHAPES = {
    "toy": Shape(64, 2, 4, 2, 128, True, 16, 1024),
    "0.6B": Shape(1024, 28, 16, 8, 3072, True),
    "1.7B": Shape(2048, 28, 16, 8, 6144, True),
    "4B": Shape(2560, 36, 32, 8, 9728, True),
    "8B": Shape(4096, 36, 32, 8, 12288, False),
}


def published_flops(shape: Shape, method: str) -> float:
    """Per token, as published: 2 N forward, 2 N for the gradient of the input, and for full 2 N for the weights'."""
    return (6.0 if method == "full" else 4.0) * (shape.linear + shape.head)


def computed_flops(shape: Shape, method: str, lengths: list[int], learnt: float) -> float:
    """Per token, counting what the step needs: the head at learnt tokens, attention to what stands before a token."""
    passes = 3.0 if method == "full" else 2.0
    before = sum(n * (n + 1) / 2 for n in lengths) / sum(lengths)  # tokens that a token sees, itself included
    attention = 4.0 * shape.layers * shape.heads * shape.head_width * before
    return passes * 2.0 * (shape.linear + learnt * shape.head) + 3.0 * attention


def lengths_of(kind: str, count: int, longest: int = LENGTH, seed: int = 0) -> list[int]:
    """Tokens of each row; `mixed`: evenly spread over the powers of two."""
    if kind == "even":
        return [longest] * count
    drawn, ratio = random.Random(seed), longest / SHORTEST
    return [round(SHORTEST * ratio ** drawn.random()) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "make", "peak"])
    parser.add_argument("--trl", default=sys.executable, help="Python that has trl")
    parser.add_argument("--output", type=Path, help="file that the lines are added to")
    parser.add_argument("--folder", type=Path, help="where models and rows are made; default: a temporary folder")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["0.6B", "1.7B", "4B", "8B"])
    parser.add_argument("--methods", nargs="+", choices=["lora", "full"], default=["lora", "full"])
    parser.add_argument("--lengths", nargs="+", choices=["even", "mixed"], default=["even", "mixed"])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--tokens", type=int, default=4 * LENGTH, help="tokens of a step, about")
    parser.add_argument("--micro-rows", type=int, default=2, help="rows that the peers compute at once")
    parser.add_argument("--limit", type=int, default=600, help="seconds for one case")
    parser.add_argument("--settings", nargs="*", default=[], help="more of our recipe")
    parser.add_argument("--check", action="store_true", help="toy model on the CPU")
    options = parser.parse_args()
    if options.command == "make":
        make(options.folder, options.shapes[0], "cpu" if options.check else "cuda")
    elif options.command == "peak":
        print(json.dumps(device_facts()))
    elif options.check or gpu_is_there():
        run(options)
    else:
        sys.exit("no GPU here: this benchmark needs one; --check tries it on the CPU")


def gpu_is_there() -> bool:
    import torch

    return torch.cuda.is_available()


# ---- all cases ----


def run(options: argparse.Namespace) -> None:
    """Every case, line by line."""
    if options.check:
        options.shapes, options.tokens = ["toy"], 2 * LENGTH // 16
    known = [json.loads(line) for line in options.output.read_text().splitlines()] if _has(options.output) else []
    done = [(r.get("shape"), r.get("method"), r.get("lengths"), r.get("system")) for r in known]
    facts = (
        {"device": "cpu", "bf16_peak": None}
        if options.check
        else json.loads(output_of([sys.executable, __file__, "peak"]))
    )
    say(
        {"what": "gpu", "time": time.strftime("%Y-%m-%d %H:%M"), "trl": version_of(options.trl), **facts},
        options.output,
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        for shape in options.shapes:
            model = folder / shape
            if not (model / "tokenizer.json").exists():
                extra = ["--check"] if options.check else []
                output_of([sys.executable, __file__, "make", "--shapes", shape, "--folder", str(model), *extra])
            for method, kind, system in itertools.product(options.methods, options.lengths, options.systems):
                if (shape, method, kind, system) not in done:
                    case = {"shape": shape, "method": method, "lengths": kind, "system": system}
                    say(case | measure(case, model, folder, facts, options), options.output)
            if options.folder is None:
                shutil.rmtree(model)


def _has(path: Path | None) -> bool:
    return path is not None and path.exists()


def say(line: dict[str, Any], path: Path | None) -> None:
    print(json.dumps(line), flush=True)
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def version_of(python: str) -> str | None:
    code = "from importlib.metadata import version; print(version('trl'))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def output_of(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"failed: {' '.join(command)}: {last_line(done.stderr)}")
    return done.stdout


def last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "?")[:300]


# ---- one case ----


def measure(
    case: dict[str, str], model: Path, folder: Path, facts: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """Run a system on a model and rows; what it did, or why it failed."""
    shape, longest = SHAPES[case["shape"]], LENGTH // 16 if options.check else LENGTH
    steps, skipped = (4, 1) if options.check else (STEPS, SKIPPED)
    sample = lengths_of(case["lengths"], 1000, longest)
    batch = max(1, round(options.tokens * len(sample) / sum(sample)))
    lengths = lengths_of(case["lengths"], batch * steps, longest)
    rows = folder / f"{case['shape']}-{case['lengths']}.jsonl"
    write_rows(rows, lengths, shape.vocabulary)
    work = Path(tempfile.mkdtemp(dir=folder))
    try:
        start = ours if case["system"] == "tunewright" else peer
        found = start(case, model, rows, work, (batch, steps, skipped, longest), options)
    except RuntimeError as error:
        return {"failed": str(error)}
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return found | shares(found["tokens_per_second"], shape, case["method"], lengths, facts["bf16_peak"])


def shares(speed: float, shape: Shape, method: str, lengths: list[int], peak: float | None) -> dict[str, float | None]:
    """FLOPs per second as parts of the GPU's peak; None where the peak isn't known."""
    if not peak:
        return {"share_4n": None, "share_computed": None}
    return {
        "share_4n": round(speed * published_flops(shape, method) / peak, 3),
        "share_computed": round(speed * computed_flops(shape, method, lengths, LEARNT) / peak, 3),
    }


Sizes = tuple[int, int, int, int]  # rows per step, steps, steps not measured, longest row


def ours(
    case: dict[str, str], model: Path, rows: Path, work: Path, sizes: Sizes, options: argparse.Namespace
) -> dict[str, Any]:
    batch, steps, _, longest = sizes
    recipe = {
        "task": "generate", "model": str(model), "name": "case",
        "data": {"train": str(rows), "validation": str(few(rows, work)), "max_length": longest},
        "trainable": {"method": case["method"]} | ({"rank": 8, "alpha": 16} if case["method"] == "lora" else {}),
        "training": {
            "max_steps": steps, "batch_size": batch, "learning_rate": 1e-4, "warmup_fraction": 0, "seed": 0,
            "precision": "fp32" if options.check else "bf16", "device": "cpu" if options.check else "cuda",
        },
        "evaluation": {"before": False, "generate_rows": 0, "max_new_tokens": 1, "retain": "none"},
    }  # fmt: skip
    path = work / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    overrides = [word for setting in options.settings for word in ("-s", setting)]
    command = [
        sys.executable,
        "-m",
        "tunewright",
        "train",
        str(path),
        "--runs",
        str(work / "runs"),
        "--json",
        *overrides,
    ]
    output, memory = watched(command, options.limit, {"TUNEWRIGHT_CACHE": str(work / "cache")})
    folder = work / "runs" / json.loads(output)["run"]
    curve = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    curve = {row["step"]: row for row in curve if "train/learning_rate" in row and "train/tokens_per_second" in row}
    return {
        "tokens_per_second": curve[steps]["train/tokens_per_second"], "peak_gpu_gb": memory,
        "step_tokens": round(curve[steps]["train/tokens"] / steps),
    }  # fmt: skip


def peer(
    case: dict[str, str], model: Path, rows: Path, work: Path, sizes: Sizes, options: argparse.Namespace
) -> dict[str, Any]:
    batch, steps, skipped, longest = sizes
    python = sys.executable if case["system"] == "peft" else options.trl
    if case["system"] != "peft" and version_of(python) is None:
        raise RuntimeError("trl is not installed; name a Python that has it with --trl")
    micro = options.micro_rows if batch > options.micro_rows else batch
    command = [
        python, PEER, "train", "--style", case["system"].removeprefix("trl-"), "--model", str(model),
        "--train", str(rows), "--output", str(work / "peer"), "--method", case["method"],
        "--device", "cpu" if options.check else "cuda", "--attention", attention(python, case["system"]),
        "--max-steps", str(steps), "--skip", str(skipped), "--batch", str(batch // micro * micro),
        "--micro-batch", str(micro), "--pack", str(longest), "--max-length", str(longest), "--learning-rate", "1e-4",
    ]  # fmt: skip
    output, memory = watched(command, options.limit, {"HF_DATASETS_CACHE": str(work / "cache")})
    found = json.loads(output.splitlines()[-1])
    return {
        "tokens_per_second": found["tokens_per_second"], "peak_gpu_gb": memory, "padding": found["padding"],
        "step_tokens": round(found["train_tokens"] / found["steps"]),
    }  # fmt: skip


def attention(python: str, system: str) -> str:
    """The fastest that is installed for the tuned; what a model comes with for the default."""
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('flash_attn') is None)"
    flash = system != "trl-default" and subprocess.run([python, "-c", code]).returncode == 0
    return "flash_attention_2" if flash else "sdpa"


def watched(command: list[str], limit: int, environment: dict[str, str]) -> tuple[str, float | None]:
    """Standard output of a process and the most GPU memory in use meanwhile, in GB. RuntimeError when it fails."""
    most, over = [0.0], threading.Event()

    def look() -> None:
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
        while not over.wait(0.25):
            used = subprocess.run(query, capture_output=True, text=True).stdout.strip()
            most[0] = max(most[0], float(used) / 1e3 * 1.048576 if used.replace(".", "").isdigit() else 0.0)

    if shutil.which("nvidia-smi"):
        threading.Thread(target=look, daemon=True).start()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env={**os.environ, **environment})
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not done after {limit} seconds") from None
    finally:
        over.set()
    if done.returncode:
        raise RuntimeError(last_line(done.stderr or done.stdout))
    return done.stdout, round(most[0], 2) or None


# ---- models, rows, the device ----


def make(folder: Path, name: str, device: str) -> None:
    """A folder with random weights and a tokenizer whose every word is one token."""
    import torch
    import transformers as hf

    shape = SHAPES[name]
    torch.manual_seed(0)
    with torch.device(device):
        model = hf.AutoModelForCausalLM.from_config(config_of(shape), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer(shape.vocabulary).save_pretrained(folder)  # last: it tells that the folder is whole


def config_of(shape: Shape) -> Any:
    import transformers as hf

    return hf.Qwen3Config(
        vocab_size=shape.vocabulary, hidden_size=shape.width, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.key_value_heads, head_dim=shape.head_width,
        intermediate_size=shape.inner, tie_word_embeddings=shape.tied, max_position_embeddings=32_768,
        bos_token_id=None, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip


def tokenizer(vocabulary: int) -> Any:
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"<unk>": 0, "<eos>": 1, "<pad>": 2} | {f"w{i}": i for i in range(3, vocabulary)}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return hf.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="<eos>", pad_token="<pad>")


def write_rows(path: Path, lengths: list[int], vocabulary: int) -> None:
    """Random words; the length includes the token that ends the completion."""
    drawn = random.Random(0)
    with path.open("w") as file:
        for length in lengths:
            words = [f"w{drawn.randrange(3, vocabulary)}" for _ in range(length - 1)]
            known = length - max(2, round(length * LEARNT))
            row = {"prompt": " ".join(words[:known]), "completion": " " + " ".join(words[known:])}
            file.write(json.dumps(row) + "\n")


def few(rows: Path, work: Path) -> Path:
    """Two rows that are scored at the end: the shortest there are, since only training is measured."""
    lines = sorted(rows.read_text().splitlines(), key=len)[:2]
    path = work / "validation.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def device_facts() -> dict[str, Any]:
    """The GPU, what its maker promises for bf16, and what a large product reaches."""
    import torch

    name = torch.cuda.get_device_name()
    promised = next((value for part, value in BF16_PEAK.items() if part in name), None)
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    for _ in range(5):
        a @ a
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(20):
        a @ a
    torch.cuda.synchronize()
    reached = 20 * 2 * 8192**3 / (time.perf_counter() - begin)
    memory = torch.cuda.get_device_properties(0).total_memory
    facts = {"device": name, "memory_gb": round(memory / 1e9, 1), "torch": torch.__version__}
    return {**facts, "bf16_peak": promised or reached, "bf16_reached": reached}


if __name__ == "__main__":
    main()
