"""The processor, the graphics card, their speed, and the memory, as a run would find them now.

Part of `examination`. The measurements are `planning.machine`'s, the choices `runtime`'s; this file words them.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from tunewright.doctor.check import Check
from tunewright.errors import MachineError
from tunewright.runtime import Runtime

LEAST_MEMORY, LITTLE_MEMORY = 700_000_000, 2_000_000_000  # the demo's peak is 1.1 GB, half of that is libraries
WAITING = 1.3  # seconds that pass for each second of computing, from which on timings mislead
SLOW_FLOPS_PER_THREAD = 5e9
CLEARLY_FASTER = 1.5


def machine() -> Iterator[Check]:
    """What a run would find when it starts, and how fast that is."""
    from tunewright.runtime import started

    try:
        with started() as runtime:
            yield device(runtime)
            yield from speed(runtime)
            yield threads(runtime)
    except MachineError as error:
        yield Check("device", "bad", str(error), "start doctor by itself, not under torchrun")


def device(runtime: Runtime) -> Check:
    import torch

    if runtime.device == "cuda":
        card = torch.cuda.get_device_properties(0)
        found = f"cuda: {card.name}, {card.total_memory / 1e9:.0f} GB"
        return Check("device", "ok", found, "", {"device": "cuda", "name": card.name, "bytes": card.total_memory})
    if runtime.device == "cpu" and _has_nvidia_card():
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for CPUs only"
        why = f"torch {torch.__version__} is built {built}"
        fix = "update the driver" if torch.version.cuda else "install torch for CUDA: https://pytorch.org/get-started"
        return Check("device", "warn", f"cpu, though there is an NVIDIA card: {why}", fix, {"device": "cpu"})
    return Check("device", "ok", f"{runtime.device}: {_processor()}", "", {"device": runtime.device})


def _has_nvidia_card() -> bool:
    return Path("/proc/driver/nvidia/gpus").is_dir() or shutil.which("nvidia-smi") is not None


def _processor() -> str:
    """The processor's own name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def speed(runtime: Runtime) -> Iterator[Check]:
    """Number format, products of matrices, memory."""
    from tunewright.planning.machine import COLUMNS, INNER, ROWS, measured_copy, measured_gemm

    shape = (ROWS, INNER, COLUMNS)
    fp32 = measured_gemm(runtime.device, "fp32", shape, runtime.threads)
    bf16 = measured_gemm(runtime.device, "bf16", shape, runtime.threads)
    rates = {"fp32": fp32.per_second, "bf16": bf16.per_second}
    yield precision(runtime, rates)
    yield products(runtime, rates[runtime.precision])
    copy = measured_copy(runtime.device, runtime.threads)
    yield Check(
        "memory speed", "ok", f"{copy.per_second / 1e9:,.0f} GB/s copied", "", {"bytes_per_second": copy.per_second}
    )
    yield busyness(fp32.waiting)


def precision(runtime: Runtime, rates: Mapping[str, float]) -> Check:
    """What `training.precision: auto` chooses now, the hardware's word for it, and the measurement."""
    from tunewright.runtime import _multiplies_bf16

    flag, ratio = _multiplies_bf16(runtime.device), rates["bf16"] / rates["fp32"]
    where = "processor" if runtime.device == "cpu" else "device"
    measured = f"{ratio:.1f} x as fast as fp32" if ratio >= 1 else f"{1 / ratio:.1f} x slower than fp32"
    found = f"{runtime.precision}: the {where} has {'' if flag else 'no '}bf16 multiplication; bf16 measures {measured}"
    values = {"chosen": runtime.precision, "flag": flag, **rates}
    if flag and runtime.precision == "fp32" and ratio > CLEARLY_FASTER:
        fix = "auto was misled, most likely by other programs; set training.precision: bf16"
        return Check("precision", "warn", found, fix, values)
    return Check("precision", "ok", found, "", values)


def products(runtime: Runtime, rate: float) -> Check:
    import torch

    found = f"{rate / 1e9:,.0f} GFLOP/s in {runtime.precision}"
    values = {"flops_per_second": rate, "precision": runtime.precision}
    kernels = torch.backends.cpu.get_cpu_capability() if runtime.device == "cpu" else ""
    if kernels:
        found, values = f"{found} ({kernels})", values | {"kernels": kernels}
    if runtime.device == "cpu" and rate < SLOW_FLOPS_PER_THREAD * runtime.threads:
        fix = "expect runs to be slow here; a torch built for this processor, or head and `last N`, help most"
        return Check("matrix products", "warn", found, fix, values)
    return Check("matrix products", "ok", found, "", values)


def busyness(waiting: float) -> Check:
    """Whether others compute here now: their share of the time in which we wanted a core."""
    share = 1 - 1 / max(waiting, 1.0)
    if waiting < WAITING:
        return Check("other programs", "ok", "the cores are ours", "", {"share_taken": share})
    found = f"others took {share:.0%} of the time in which this one wanted to compute"
    return Check("other programs", "warn", found, "runs take longer until they end", {"share_taken": share})


def threads(runtime: Runtime) -> Check:
    """One per core, unless the container may use less than the cores that it sees."""
    limit = core_limit()
    found = f"{runtime.threads}, for {os.cpu_count()} cores"
    values = {"threads": runtime.threads, "cores": os.cpu_count(), "core_limit": limit}
    if limit is not None and limit < runtime.threads:
        fewer = max(1, int(limit))
        fix = f"set training.threads: {fewer}; threads beyond the limit wait for each other"
        return Check("threads", "warn", f"{found}, of which this container may use {limit:g}", fix, values)
    return Check("threads", "ok", found, "", values)


def core_limit(groups: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores' worth of time that the control group allows, if it limits any."""
    try:
        allowed, period = (groups / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return int(allowed) / int(period) if allowed.isdigit() and period.isdigit() and int(period) else None


def memory() -> Check:
    import psutil

    from tunewright.runtime import memory_available

    free, total = memory_available(), psutil.virtual_memory().total
    found, values = f"{free / 1e9:.1f} GB free of {total / 1e9:.1f} GB", {"free_bytes": free, "total_bytes": total}
    if free < LEAST_MEMORY:
        return Check("memory", "bad", found, "close other programs; even a small model needs 0.7 GB", values)
    if free < LITTLE_MEMORY:
        return Check("memory", "warn", found, "enough for a small model; `tunewright plan` says for which", values)
    return Check("memory", "ok", found, "", values)
