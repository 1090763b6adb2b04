"""What can be said of the cluster's workers without one: jobs go to Ray and come back, and what is missing is said.

Ray itself stands in as a module that runs actors in this process.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from tests.choosing import small
from tunewright.choosing import ray_workers
from tunewright.choosing.work import Job, run
from tunewright.choosing.workers import Processes
from tunewright.errors import MachineError


class RayError(Exception):
    """Of the module that stands in."""


class Method:
    def __init__(self, call: Any) -> None:
        self.call = call

    def remote(self, *given: Any) -> Any:
        return lambda: self.call(*given)


class Actor:
    def __init__(self, made: Any) -> None:
        self.made = made

    def __getattr__(self, name: str) -> Method:
        return Method(getattr(self.made, name))


def stand_in(seen: dict[str, Any]) -> types.ModuleType:
    """As much of Ray as is used."""
    ray: Any = types.ModuleType("ray")

    def remote(**options: Any) -> Any:
        seen["options"] = options

        def of(kind: type) -> Any:
            return types.SimpleNamespace(remote=lambda *given: Actor(kind(*given)))

        return of

    ray.remote, ray.exceptions = remote, types.SimpleNamespace(RayError=RayError)
    ray.is_initialized, ray.get = (lambda: False), (lambda asked: asked())
    ray.init = lambda **settings: seen.update(init=settings)
    ray.kill = lambda actor: seen.setdefault("killed", []).append(actor)
    return ray


@pytest.fixture
def seen(monkeypatch) -> dict[str, Any]:
    found: dict[str, Any] = {}
    monkeypatch.setitem(sys.modules, "ray", stand_in(found))
    return found


def test_a_job_goes_there_and_its_result_comes_back(seen, tmp_path, monkeypatch):
    from tunewright.choosing.board import write_recipe
    from tunewright.planning.trials import given_values

    monkeypatch.setattr(Processes, "do", lambda self, job, tell: run(job, tell))
    workers = ray_workers.RayWorkers(threads=3, address="auto")
    recipe = write_recipe(tmp_path / "r.yaml", given_values(small.labelled("one")))
    found = workers.do(Job("train", str(recipe), str(tmp_path / "runs"), limits=((9.0, 0.1),)), lambda words: None)
    assert found.state == "succeeded" and (tmp_path / "runs" / str(found.run) / "model").is_dir()
    assert seen["init"]["address"] == "auto" and seen["options"]["num_cpus"] == 3
    assert len(seen["killed"]) == 1 and workers._alive == [], "its process is gone afterwards"
    import os

    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_a_machine_that_is_lost_is_said(seen, monkeypatch):
    def lost(self: Any, job: Job, tell: Any) -> Any:
        raise RayError("the node died\nand a traceback")

    monkeypatch.setattr(Processes, "do", lost)
    with pytest.raises(MachineError, match=r"on the cluster ended \(the node died\)"):
        ray_workers.RayWorkers().do(Job("train", "r.yaml", "runs"), lambda words: None)
    assert len(seen["killed"]) == 1


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MachineError, match=r"pip install 'tunewright\[ray\]'"):
        ray_workers.RayWorkers()
