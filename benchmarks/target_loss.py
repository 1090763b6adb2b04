"""Memory and time of the loss alone, for a vocabulary of 262,144: one forward and backward from hidden states.

    python benchmarks/target_loss.py [--positions 2048] [--targets 256 2048] [--threads 2] [--rounds 3]

    everywhere   the plain way: logits [N, V] of every position, cross-entropy at the targets
    plain        logits of the targets alone, plain cross-entropy
    torch        F.linear_cross_entropy of the targets, with its options (no bias, scale or soft cap)
    tunewright   models.language_head.target_loss_sum of the targets

Each with the head frozen, as under adapters, and with the head learning. Each case is a process of its own; memory is
the most it held beyond what stood there before the first loss: weights, hidden states and libraries. Loss and gradients
are compared with those of `plain`. The best of the rounds counts; --positions is what the texts have in all, --targets
how many are learnt.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WAYS = ["plain", "everywhere", "torch", "tunewright"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", type=int, default=2048)
    parser.add_argument("--targets", type=int, nargs="+", default=[256, 2048])
    parser.add_argument("--vocabulary", type=int, default=262_144)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--case", nargs=3, metavar=("WAY", "TARGETS", "LEARNS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        way, targets, learns = options.case
        print(json.dumps(measure(way, int(targets), learns == "yes", options)))
        return
    shape = {name: getattr(options, name) for name in ("positions", "vocabulary", "width", "threads", "rounds")}
    print(json.dumps({"what": "target_loss", **shape}), flush=True)
    for targets in options.targets:
        for learns in ("no", "yes"):
            compare(options, targets, learns)


def compare(options: argparse.Namespace, targets: int, learns: str) -> None:
    """A line per way; how far its loss and gradients are from the first one's."""
    reference: dict[str, Any] | None = None
    for way in options.ways:
        words = [
            f"--{name}={getattr(options, name)}" for name in ("positions", "vocabulary", "width", "threads", "rounds")
        ]
        command = [sys.executable, __file__, *words, "--case", way, str(targets), learns]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            says = "killed: out of memory?" if done.returncode < 0 else (done.stderr.strip() or "?").splitlines()[-1]
            print(json.dumps({"way": way, "targets": targets, "head_learns": learns, "failed": says}), flush=True)
            continue
        found = json.loads(done.stdout)
        checks = {name: found.pop(name) for name in ("loss", "gradient", "head_gradient")}
        reference = reference or checks
        line = {"way": way, "targets": targets, "head_learns": learns, **found}
        print(
            json.dumps(line | {f"{name}_off_by": off(value, reference[name]) for name, value in checks.items()}),
            flush=True,
        )


def off(found: list[float], wanted: list[float]) -> float:
    """Largest difference, relative to the largest number."""
    if not wanted:
        return 0.0
    return float(f"{max(abs(a - b) for a, b in zip(found, wanted, strict=True)) / max(map(abs, wanted)):.2g}")


def measure(way: str, targets: int, learns: bool, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the best round and bytes beyond what stood there before."""
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    small = torch.randn(32, 8, requires_grad=True)  # libraries load before anything is measured
    LOSSES[way](torch.randn(16, 8, requires_grad=True), small, torch.arange(16), torch.arange(16)).backward()
    weight = torch.randn(options.vocabulary, options.width).mul_(0.05).requires_grad_(learns)
    hidden = torch.randn(options.positions, options.width, requires_grad=True)
    places = torch.linspace(0, options.positions - 1, targets).long()
    wanted = torch.randint(0, options.vocabulary, (targets,))
    Path("/proc/self/clear_refs").write_text("5")  # the most ever held starts again from here
    before, best, loss = now("VmRSS"), float("inf"), torch.zeros(())
    for _ in range(options.rounds):
        hidden.grad = weight.grad = None
        begin = time.perf_counter()
        loss = LOSSES[way](hidden, weight, places, wanted)
        loss.backward()
        best = min(best, time.perf_counter() - begin)
    some = torch.arange(0, hidden.numel(), max(1, hidden.numel() // 1000))
    few = torch.arange(0, weight.numel(), max(1, weight.numel() // 1000))
    return {
        "seconds": round(best, 3),
        "targets_per_second": round(targets / best, 1),
        "peak_mb": round((now("VmHWM") - before) / 1e6),
        "loss": [float(loss)],
        "gradient": hidden.grad.flatten()[some].tolist(),
        "head_gradient": weight.grad.flatten()[few].tolist() if learns else [],
    }


def everywhere(hidden: Any, weight: Any, places: Any, wanted: Any) -> Any:
    import torch

    labels = torch.full((len(hidden),), -100).index_copy(0, places, wanted)
    return torch.nn.functional.cross_entropy(hidden @ weight.T, labels, reduction="sum")


def plain(hidden: Any, weight: Any, places: Any, wanted: Any) -> Any:
    import torch

    return torch.nn.functional.cross_entropy(hidden[places] @ weight.T, wanted, reduction="sum")


def of_torch(hidden: Any, weight: Any, places: Any, wanted: Any) -> Any:
    import torch

    way = torch.nn.LinearCrossEntropyOptions()
    return torch.nn.functional.linear_cross_entropy(hidden[places], weight, wanted, reduction="sum", options=way)


def ours(hidden: Any, weight: Any, places: Any, wanted: Any) -> Any:
    from tunewright.models.language_head import LanguageHead, target_loss_sum

    return target_loss_sum(hidden[places], LanguageHead(weight), wanted)


LOSSES = {"everywhere": everywhere, "plain": plain, "torch": of_torch, "tunewright": ours}


def now(name: str) -> int:
    """VmRSS (held now) or VmHWM (most ever held) of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


if __name__ == "__main__":
    main()
