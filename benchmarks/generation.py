"""Generated tokens per second and time to the first token: the engine against transformers' `generate`, greedy.

    python benchmarks/generation.py [--model FOLDER] [--data DIR] [--batch 1 8 32] [--new 32] [--rounds 3] [--threads 2]

Without --model: random weights of Gemma-3 270M's shape. Without --data: random prompts of 16 to 384 tokens; with it,
questions with their context and bare instructions, half and half. Both answer the same prompts, padded on the left for
transformers (its default cache and attention), in turns; the best of the rounds counts. On a machine that others use
compare the seconds of processor time (cpu), with --threads 1, since waiting threads spin.

    fixed    every row gets --new tokens, whatever it says
    newline  a row ends with its line, as when short answers are scored (real model and data only)
    first    one token: time to the first one
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from imdb import machine

from tunewright.models.generation import Generated, generate
from tunewright.models.sampling import Sampling

TEMPLATE = "Answer the question from the text.\n\nText: {context}\n\nQuestion: {question}\n\nAnswer:"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    hf.logging.set_verbosity_error()
    model, tokenizer = load(options.model)
    print(json.dumps({"what": "generation", "threads": options.threads, **machine()}), flush=True)
    for batch in options.batch:
        prompts = read(options.data, tokenizer, batch) if options.data and tokenizer else draw(batch)
        compare("warm-up", model, tokenizer, prompts[:1], 1, (), 1)
        compare("first", model, tokenizer, prompts, 1, (), options.rounds)
        compare("fixed", model, tokenizer, prompts, options.new, (), options.rounds)
        if options.data and tokenizer:
            compare("newline", model, tokenizer, prompts, options.new, ("\n",), options.rounds)


def load(folder: Path | None) -> tuple[Any, Any]:
    if folder is not None:
        tokenizer = hf.AutoTokenizer.from_pretrained(folder)
        return hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), tokenizer
    torch.manual_seed(0)
    config = hf.Gemma3TextConfig(
        vocab_size=262_144, hidden_size=640, num_hidden_layers=18, num_attention_heads=4, num_key_value_heads=1,
        head_dim=256, intermediate_size=2048, sliding_window=512, max_position_embeddings=32_768,
    )  # fmt: skip
    return hf.AutoModelForCausalLM.from_config(config).eval(), None


def draw(batch: int) -> list[list[int]]:
    """Random prompts of mixed lengths."""
    generator = np.random.default_rng(0)
    lengths = generator.permutation(np.geomspace(16, 384, batch).astype(int)) if batch > 1 else [128]
    return [generator.integers(1000, 200_000, length).tolist() for length in lengths]


def read(folder: Path, tokenizer: Any, batch: int) -> list[list[int]]:
    """Questions about a text, and bare instructions."""

    def rows(name: str) -> list[dict[str, Any]]:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines[: (batch + 1) // 2]]

    questions = [TEMPLATE.format(**row) for row in rows("squad_validation.jsonl")]
    orders = [f"{row['instruction']}\n\nAnswer:" for row in rows("instructions_validation.jsonl")]
    texts = [text for pair in zip(questions, orders, strict=False) for text in pair][:batch]
    return [tokenizer(text)["input_ids"] for text in texts]


def compare(
    what: str, model: Any, tokenizer: Any, prompts: Sequence[list[int]], new: int, stop: tuple[str, ...], rounds: int
) -> None:
    """Both in turns; one line with the best of each."""
    ways: dict[str, Callable[[], list[tuple[int, ...]]]] = {
        "tunewright": lambda: [answer.ids for answer in ours(model, tokenizer, prompts, new, stop)],
        "transformers": lambda: theirs(model, tokenizer, prompts, new, stop),
    }
    seconds, cpu, answers = dict.fromkeys(ways, float("inf")), dict.fromkeys(ways, float("inf")), {}
    for _ in range(rounds):
        for name, way in ways.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            answers[name] = way()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
            cpu[name] = min(cpu[name], time.process_time() - cpu_start)
    if what == "warm-up":
        return
    tokens = sum(len(ids) for ids in answers["tunewright"])
    equal = sum(a == b[: len(a)] for a, b in zip(answers["tunewright"], answers["transformers"], strict=True))
    line: dict[str, Any] = {"what": what, "batch": len(prompts), "prompt_tokens": sum(map(len, prompts))}
    line |= {"longest_prompt": max(map(len, prompts)), "new_tokens": tokens, "equal_rows": equal}
    line |= {f"{name}_seconds": round(value, 3) for name, value in seconds.items()}
    line |= {f"{name}_cpu_seconds": round(value, 3) for name, value in cpu.items()}
    line |= {f"{name}_tokens_per_second": round(tokens / value, 1) for name, value in seconds.items()}
    line |= {"ratio": round(seconds["transformers"] / seconds["tunewright"], 2)}
    line |= {"cpu_ratio": round(cpu["transformers"] / cpu["tunewright"], 2)}
    print(json.dumps(line), flush=True)


def ours(model: Any, tokenizer: Any, prompts: Sequence[list[int]], new: int, stop: tuple[str, ...]) -> list[Generated]:
    return generate(model, list(prompts), Sampling(max_new_tokens=new, stop=stop), tokenizer=tokenizer)


def theirs(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], new: int, stop: tuple[str, ...]
) -> list[tuple[int, ...]]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    settings = hf.GenerationConfig(max_new_tokens=new, do_sample=False, pad_token_id=0, eos_token_id=None)
    more = {"stop_strings": list(stop), "tokenizer": tokenizer} if stop else {}
    with torch.inference_mode():
        output = model.generate(ids, attention_mask=mask, generation_config=settings, **more)
    return [tuple(row) for row in output[:, longest:].tolist()]


if __name__ == "__main__":
    main()
