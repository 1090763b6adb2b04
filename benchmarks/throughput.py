"""Real tokens per second while training and scoring, and their share of this machine's GEMM rate.

    python benchmarks/throughput.py --data DIR [--max-length 256]

LoRA counts 4 N FLOPs per token (N: parameters of the linear layers; forward 2 N, gradient of the input 2 N) and
attention 4·L·D·s forward, twice that backward, for texts of s tokens. "whole" counts every layer; "computed" leaves
out the last, which runs for one token. Best of three passes per size of micro-batch.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from imdb import gemm_rate, machine

from tunewright.data.batching import cut_by_tokens, lay_end_to_end
from tunewright.data.labels import LabelSpec
from tunewright.data.tokenizing import encode_texts
from tunewright.models.forward import Forward
from tunewright.models.heads import head_modules
from tunewright.models.inference import predict_logits
from tunewright.models.loading import load_base, resolve_base
from tunewright.models.trainable import TrainableSpec, choose

LABELS = LabelSpec("single", ("negative", "positive"), ("negative", "positive"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--max-length", type=int, default=256)
    options = parser.parse_args()
    print(json.dumps({"what": "throughput", **machine()}))
    lines = (options.data / "imdb_train.jsonl").read_text(encoding="utf-8").splitlines()[:96]
    texts = [json.loads(line)["text"] for line in lines]
    for targets in (["query"], "all-linear"):
        loaded = load_base(resolve_base("minilm"), LABELS, seed=0, dropout=0.0)
        ids = sorted(encode_texts(texts, loaded.tokenizer, options.max_length, "left"), key=len)[16:80]
        model = choose(loaded.model, TrainableSpec("lora", targets=targets), head_modules(loaded.model)).model
        report(Forward(model.train()), ids, targets)


def report(forward: Forward, ids: list[list[int]], targets: list[str] | str) -> None:
    """A line per size of micro-batch, then one for scoring."""
    lengths = np.array([len(tokens) for tokens in ids])
    rate, work = gemm_rate(), flops_per_token(forward, lengths)
    for budget in (512, 1024, 2048, 4096, 8192):
        parts = [lay_end_to_end([ids[i] for i in part]) for part in cut_by_tokens(np.arange(len(ids)), lengths, budget)]
        speed = lengths.sum() / min(seconds(lambda parts=parts: train(forward, parts)) for _ in range(3))
        shares = {name: round(float(flops * speed / rate), 3) for name, flops in work.items()}
        print(json.dumps({"targets": targets, "micro_batch": budget, "tokens_per_second": round(speed), **shares}))
    speed = lengths.sum() / min(seconds(lambda: predict_logits(forward, ids)) for _ in range(3))
    print(json.dumps({"targets": targets, "scoring_tokens_per_second": round(speed)}), flush=True)


def train(forward: Forward, parts: list) -> None:
    for part in parts:
        forward.logits(part).sum().backward()


def seconds(call) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def flops_per_token(forward: Forward, lengths: np.ndarray) -> dict[str, float]:
    """FLOPs of forward and backward per token: of the whole model, and of what is computed."""
    layers = forward.num_layers
    linear = sum(
        module.weight.numel()
        for module in forward.base.get_submodule("encoder").modules()
        if type(module) is torch.nn.Linear and module.weight.shape[0] >= forward.config.hidden_size
        and module.weight.shape[1] >= forward.config.hidden_size
    )  # fmt: skip
    mean = float((lengths.astype(float) ** 2).sum() / lengths.sum())
    whole = 4.0 * linear + 12.0 * layers * forward.config.hidden_size * mean
    return {"share_whole": whole, "share_computed": whole * (layers - 1) / layers}


if __name__ == "__main__":
    main()
