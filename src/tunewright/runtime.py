"""The machine under a run: device, number format, threads, rank, memory. Probed, not assumed.

Owns everything that differs between one process and a world of them; the loop only sees sums over ranks. Imports torch
inside its functions, so that the command's help stays instant.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.errors import MachineError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Runtime:
    """Where and how this process computes."""

    device: str  # cpu, cuda, mps
    precision: str  # fp32, bf16
    threads: int
    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor summed over all ranks, in place."""
        if self.world_size > 1:
            import torch.distributed as distributed

            try:
                distributed.all_reduce(tensor)
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                raise MachineError(f"another rank is gone ({reason}); start with --resume") from None
        return tensor

    def barrier(self) -> None:
        """Wait for every rank."""
        import torch

        self.sum(torch.zeros(1, device=self.device))

    def share(self, text: str) -> str:
        """Rank 0's text, on every rank."""
        if self.world_size == 1:
            return text
        import torch.distributed as distributed

        box = [text]
        distributed.broadcast_object_list(box)
        return box[0]


@contextmanager
def started(device: str = "auto", precision: str = "auto", threads: int | str = "auto") -> Generator[Runtime]:
    """Set threads, join the ranks that torchrun started, and leave them at the end. Raises MachineError."""
    import torch

    chosen = _device(device)
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    count = _threads() if threads == "auto" else int(threads)
    if world_size > 1 and threads == "auto":
        count = max(1, count // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    torch.set_num_threads(count)
    # A kernel is kept for every shape; batches of texts have hundreds, and a thousand of them are 150 MB.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    runtime = Runtime(chosen, _precision(chosen, precision), count, int(os.environ.get("RANK", "0")), world_size)
    if world_size == 1:
        yield runtime
        return
    import torch.distributed as distributed

    distributed.init_process_group("nccl" if chosen == "cuda" else "gloo", timeout=timedelta(minutes=10))
    try:
        yield runtime
    finally:
        distributed.destroy_process_group()


def _device(wanted: str) -> str:
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, available in there.items() if available)
    if not there[wanted]:
        raise MachineError(
            f'device "{wanted}" is not available here; use training.device: auto', field="training.device"
        )
    return wanted


def _threads() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _precision(device: str, wanted: str) -> str:
    """`auto`: bf16 where the hardware multiplies it and it is measured to be faster than fp32 here."""
    if wanted != "auto":
        return wanted
    if not _multiplies_bf16(device):
        return "fp32"
    bf16, fp32 = _fastest_products(device)
    return "bf16" if bf16 * 1.2 < fp32 else "fp32"


def _multiplies_bf16(device: str) -> bool:
    """Whether the hardware says that it multiplies bf16: a busy machine's timing alone must not decide the numbers."""
    import torch

    if device == "cpu":
        flags = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        return any(getattr(torch.cpu, flag, lambda: False)() for flag in flags)
    return device == "cuda" and torch.cuda.is_bf16_supported()


def _fastest_products(device: str, size: int = 512, repeats: int = 15) -> tuple[float, float]:
    """Least seconds of a matrix product in bf16 and in fp32, taken in turns so that both see the same load."""
    import torch

    # On a CPU one thread and its own time: what other programs take doesn't count.
    clock, threads = (time.thread_time, torch.get_num_threads()) if device == "cpu" else (time.perf_counter, 0)
    operands = [torch.ones(size, size, device=device, dtype=dtype) for dtype in (torch.bfloat16, torch.float32)]
    best = [float("inf")] * 2
    if threads:
        torch.set_num_threads(1)
    for _ in range(repeats):
        for i, a in enumerate(operands):
            begin = clock()
            (a @ a).sum().item()
            best[i] = min(best[i], clock() - begin)
    if threads:
        torch.set_num_threads(threads)
    return best[0], best[1]


def give_back() -> None:
    """Have the C library return freed memory, so that what is held is what is used; elsewhere than in glibc nothing."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def memory_in_use() -> int:
    """Resident bytes of this process."""
    import psutil

    return psutil.Process().memory_info().rss


def peak_memory() -> int:
    """Most bytes this process ever held resident; on a GPU, most that torch held there."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def memory_available() -> int:
    """Bytes this process may still take: what the machine has free, or what its control group leaves."""
    import psutil

    free = psutil.virtual_memory().available
    limit = _group_limit()
    return free if limit is None else max(0, min(free, limit - memory_in_use()))


def _group_limit() -> int | None:
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(name)
        if path.exists() and (text := path.read_text().strip()).isdigit() and int(text) < 1 << 60:
            return int(text)
    return None
