"""The machine under a run: what is probed, and that two ranks are one run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import torch

from tests import whole
from tunewright import runtime
from tunewright.errors import MachineError
from tunewright.runs import read_summary
from tunewright.runtime import Runtime, started

# No dropout: each rank draws its own. An uneven last batch, and steps that leave the ranks unequal numbers of tokens.
SETTINGS = {
    "trainable.dropout": 0.0,
    "training.learning_rate": 1e-3,
    "training.batch_size": 5,
    "training.checkpoint_every": 3,
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


KILLED = """
import os, signal, sys
from tunewright.learning import loop
from tunewright.cli.app import main
real, taken = loop.step_gradient, []
def step_gradient(*given):
    taken.append(1)
    if len(taken) == 5 and os.environ["RANK"] == "1" and os.environ.get("KILL_RANK_1"):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given)
loop.step_gradient = step_gradient
sys.exit(main(sys.argv[1:]))
"""


def two_ranks(folder: Path, arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    script = folder / "rank.py"
    script.write_text(KILLED, encoding="utf-8")
    command = [
        whole.PYTHON, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1",
        "--master-port", str(free_port()), str(script), *arguments,
    ]  # fmt: skip
    return subprocess.run(
        command, env=whole.child_environment() | environment, capture_output=True, text=True, timeout=280
    )


def only_folder(runs: Path) -> Path:
    (folder,) = (path.parent for path in runs.glob("*/run.json"))
    return folder


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """A run on two ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    done = two_ranks(folder, whole.train_command(folder / "runs", method="last 1", **SETTINGS))
    assert done.returncode == 0, done.stderr
    return only_folder(folder / "runs")


def test_two_ranks_are_one_run(together, tmp_path):
    alone = whole.start(tmp_path, method="last 1", settings=SETTINGS)
    assert alone.summary["data"]["train_rows"] % 5 % 2 == 1  # the last batch can't be halved
    for name in ("metrics.jsonl", "samples.jsonl"):
        ones, twos = whole.lines(alone.folder, name), whole.lines(together, name)
        assert [row["step"] for row in ones] == [row["step"] for row in twos]
        for one, two in zip(ones, twos, strict=True):
            for key, value in one.items():
                assert two[key] == (
                    pytest.approx(value, abs=1e-6, rel=1e-5) if isinstance(value, float) else value
                ) or (isinstance(value, dict) and two[key] == pytest.approx(value, abs=2e-6)), (key, one, two)
    one, two = (whole.tensors(folder / "model") for folder in (alone.folder, together))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-6, rtol=1e-5)
    assert json.loads((together / "environment.json").read_text())["world_size"] == 2


def test_a_killed_rank_ends_the_run_and_it_goes_on(together, tmp_path):
    begin = time.perf_counter()
    command = whole.train_command(tmp_path / "runs", method="last 1", **SETTINGS)
    done = two_ranks(tmp_path, command, KILL_RANK_1="1")
    assert done.returncode != 0 and time.perf_counter() - begin < 240
    folder = only_folder(tmp_path / "runs")
    summary = read_summary(folder)
    assert summary["state"] in ("failed", "interrupted") and summary["error"], summary
    said = [line for line in done.stderr.splitlines() if line.startswith("error[")]
    assert len(said) == 1, done.stderr
    assert "rank is gone" in said[0] or "stopped at step" in said[0]
    resumed = two_ranks(tmp_path, ["train", "--resume", str(folder), "--runs", str(tmp_path / "runs")])
    assert resumed.returncode == 0, resumed.stderr
    one, two = (whole.tensors(path / "model") for path in (together, folder))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert whole.lines(folder, "metrics.jsonl") == whole.lines(together, "metrics.jsonl")


# ---- one process ----


def test_a_world_of_one_sums_to_itself():
    alone = Runtime("cpu", "fp32", 1)
    tensor = torch.tensor([1.0, 2.0])
    assert alone.sum(tensor) is tensor and tensor.tolist() == [1.0, 2.0]
    assert alone.is_main and alone.share("x") == "x" and alone.barrier() is None
    assert not Runtime("cpu", "fp32", 1, rank=1, world_size=2).is_main


def test_a_lost_rank_is_one_sentence(monkeypatch):
    import torch.distributed as distributed

    def gone(_):
        raise RuntimeError("Connection closed by peer [127.0.0.1]:1\nmore")

    monkeypatch.setattr(distributed, "all_reduce", gone)
    with pytest.raises(MachineError, match=r"another rank is gone \(Connection closed by peer .*--resume") as caught:
        Runtime("cpu", "fp32", 1, 0, 2).barrier()
    assert "\n" not in caught.value.line()


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_set(threads):
    before = torch.get_num_threads()
    try:
        with started("cpu", "fp32", threads) as machine:
            assert (machine.threads, torch.get_num_threads()) == (threads, threads)
            assert (machine.device, machine.precision, machine.rank, machine.world_size) == ("cpu", "fp32", 0, 1)
    finally:
        torch.set_num_threads(before)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MachineError, match='"cuda" is not available here') as caught, started("cuda"):
        pass
    assert caught.value.field == "training.device" and caught.value.exit_code == 5


@pytest.mark.parametrize("bf16, fp32, expected", [(1.0, 1.1, "fp32"), (1.0, 1.3, "bf16"), (4.0, 1.0, "fp32")])
def test_precision_is_measured(monkeypatch, bf16, fp32, expected):
    monkeypatch.setattr(runtime, "_fastest_products", lambda device: (bf16, fp32))
    monkeypatch.setattr(runtime, "_multiplies_bf16", lambda device: device == "cpu")
    assert runtime._precision("cpu", "auto") == expected
    assert runtime._precision("cpu", "fp32") == "fp32" and runtime._precision("mps", "auto") == "fp32"


def test_memory_is_what_the_group_leaves(monkeypatch):
    monkeypatch.setattr(runtime, "_group_limit", lambda: None)
    free = runtime.memory_available()
    assert free > 0 and runtime.peak_memory() >= runtime.memory_in_use() // 2 > 0
    monkeypatch.setattr(runtime, "_group_limit", lambda: runtime.memory_in_use() + (1 << 20))
    assert 0 <= runtime.memory_available() <= (8 << 20)
    monkeypatch.setattr(runtime, "_group_limit", lambda: 1)
    assert runtime.memory_available() == 0


def test_threads_of_auto_are_the_cores_this_process_may_use():
    assert runtime._threads() == len(os.sched_getaffinity(0))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # nothing above left a handler behind


def test_a_fast_moment_does_not_make_bf16_of_a_cpu_without_matrix_units(monkeypatch):
    """On a busy machine the timing is noise; two runs of one recipe must not differ by it."""
    monkeypatch.setattr(runtime, "_fastest_products", lambda device: (1.0, 9.0))
    monkeypatch.setattr(runtime, "_multiplies_bf16", lambda device: False)
    assert runtime._precision("cpu", "auto") == "fp32"
