"""How fast this machine multiplies matrices and moves memory: measured, in under half a second, never from a table.

`plan` turns floating-point operations into seconds with it, `doctor` shows it. What counts is what the machine can do,
not what it has left at this moment: the best of many short trials, and on a CPU whose cores are taken by others, what
each thread did in the time that it really had. Decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

BUDGET_SECONDS = 0.15  # for each series of trials
LEAST_TRIALS = 5
ROWS, INNER, COLUMNS = 512, 384, 1536  # a feed-forward product of a small encoder: a few milliseconds on two cores
COPIED_BYTES = 64 << 20  # with the copy twice that: more than the caches of most processors hold
SHARE_OF_FREE = 0.1  # of the free memory that a copy may take
BUSY = 1.1  # seconds that pass for each second a thread computes, from which on others are in the way
TOGETHER = 0.9  # of what its threads do apart: a product cut into parts has to wait for the last of them


@dataclass(frozen=True)
class Rate:
    """One measurement."""

    per_second: float
    waiting: float  # 1: the cores were ours; 2: every second one was somebody else's


def gemm_rate(device: str = "cpu", precision: str = "fp32", shape: tuple[int, int, int] | None = None) -> float:
    """FLOP/s of a product [rows, inner] x [inner, columns] with torch's present number of threads.

    `shape`: that of the products that matter to the caller; larger ones run nearer to the machine's peak.
    """
    return measured_gemm(device, precision, shape or (ROWS, INNER, COLUMNS), _threads()).per_second


def memory_bandwidth(device: str = "cpu") -> float:
    """Bytes/s of a copy, read and written, with torch's present number of threads."""
    return measured_copy(device, _threads()).per_second


def _threads() -> int:
    import torch

    return torch.get_num_threads()


@cache
def measured_gemm(device: str, precision: str, shape: tuple[int, int, int], threads: int) -> Rate:
    """The measurement behind `gemm_rate`, taken once."""
    import torch

    rows, inner, columns = shape
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32

    def prepare(parts: int) -> Callable[[], object]:
        # Ones and not random numbers: drawing would move the random state that a run depends on.
        hidden = torch.ones(rows, inner, device=device, dtype=dtype)
        weight = torch.ones(max(1, columns // parts), inner, device=device, dtype=dtype)
        return lambda: torch.nn.functional.linear(hidden, weight)

    return _rate(2.0 * rows * inner * columns, prepare, device, threads)


@cache
def measured_copy(device: str, threads: int) -> Rate:
    """The measurement behind `memory_bandwidth`, taken once."""
    import torch

    from tunewright.runtime import memory_available

    items = max(1 << 18, min(COPIED_BYTES, int(memory_available() * SHARE_OF_FREE) // 2) // 4)

    def prepare(parts: int) -> Callable[[], object]:
        source = torch.ones(items // parts, device=device)
        target = torch.zeros_like(source)
        return lambda: target.copy_(source)

    return _rate(2.0 * 4 * items, prepare, device, threads)


def _rate(amount: float, prepare: Callable[[int], Callable[[], object]], device: str, threads: int) -> Rate:
    """`prepare(parts)` gives one of `parts` equal pieces of the work."""
    direct = amount / _least_seconds(prepare(1), _waiter(device))  # its memory is free again before the next
    if device != "cpu":
        return Rate(direct, 1.0)
    apart, waiting = _apart(prepare, threads)
    return Rate(direct if waiting < BUSY else max(direct, TOGETHER * amount / apart), waiting)


def _apart(prepare: Callable[[int], Callable[[], object]], threads: int) -> tuple[float, float]:
    """Each thread on a piece of its own: least seconds of computing, and how long they waited for a core."""
    import torch

    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            pieces = [prepare(threads) for _ in range(threads)]
            found = list(pool.map(_computing, pieces))
    finally:
        torch.set_num_threads(threads)
    slowest = max(least for least, _, _ in found)
    return slowest, sum(passed for _, passed, _ in found) / sum(computed for _, _, computed in found)


def _computing(work: Callable[[], object]) -> tuple[float, float, float]:
    """Least seconds of computing of one trial; seconds that passed and seconds computed over all of them."""
    import torch

    torch.set_num_threads(1)  # each thread has a setting of its own
    work()
    begin, begun = time.perf_counter(), time.thread_time()
    least = float("inf")
    while time.perf_counter() - begin < BUDGET_SECONDS:
        start = time.thread_time()
        work()
        least = min(least, time.thread_time() - start)
    return least, time.perf_counter() - begin, max(time.thread_time() - begun, 1e-9)


def _least_seconds(work: Callable[[], object], wait: Callable[[], object]) -> float:
    """Seconds of the fastest of many trials, after one that chooses kernels and touches memory."""
    work()
    wait()
    begin, best, trials = time.perf_counter(), float("inf"), 0
    while trials < LEAST_TRIALS or time.perf_counter() - begin < BUDGET_SECONDS:
        start = time.perf_counter()
        work()
        wait()
        best, trials = min(best, time.perf_counter() - start), trials + 1
    return best


def _waiter(device: str) -> Callable[[], object]:
    """What returns once the device has done its work: a GPU only takes orders."""
    import torch

    waits: dict[str, Callable[[], object]] = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}
    return waits.get(device, lambda: None)
