"""Attention on this CPU, forward and backward, milliseconds: the fused kernel beside what ships for each number format.

    python benchmarks/attention.py

2,048 tokens in texts of one length, 12 heads of width 32 (MiniLM's). Best of twelve.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from tunewright.models.attention import packed_attention

TOKENS, HEADS, WIDTH = 2048, 12, 32


def main() -> None:
    for length in (32, 128, 256, 512):
        for dtype in (torch.float32, torch.bfloat16):
            count = TOKENS // length
            q, k, v = (torch.randn(1, HEADS, TOKENS, WIDTH).to(dtype).requires_grad_() for _ in range(3))
            texts = [t[0].unflatten(1, (count, length)).transpose(0, 1) for t in (q, k, v)]
            fused = best(lambda texts=texts: F.scaled_dot_product_attention(*texts), (q, k, v))
            lengths = (length,) * count
            ours = best(
                lambda q=q, k=k, v=v, lengths=lengths: packed_attention(
                    torch.nn.Module(), q, k, v, None, sequence_lengths=lengths
                )[0],
                (q, k, v),
            )
            row = {"length": length, "format": str(dtype), "fused_ms": round(fused, 1), "ships_ms": round(ours, 1)}
            print(json.dumps(row), flush=True)


def best(call: Callable[[], torch.Tensor], wanted: tuple[torch.Tensor, ...]) -> float:
    """Milliseconds of a forward and its backward."""
    fastest = float("inf")
    for _ in range(13):
        begin = time.perf_counter()
        out = call()
        torch.autograd.grad(out.sum(), wanted, retain_graph=True)
        fastest = min(fastest, time.perf_counter() - begin)
    return fastest * 1e3


if __name__ == "__main__":
    main()
