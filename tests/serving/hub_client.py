"""A process that knows only the hub in HF_ENDPOINT: does the jobs of a JSON list on stdin, prints what came of each.

For test_hub: the client takes its hub's address, and where it keeps what it downloads, when it is imported.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any


def main() -> None:
    """One result per job: {"value": ...} or {"code": exit code, "line": the error's line}."""
    from tunewright.errors import TunewrightError

    results: list[dict[str, Any]] = []
    for job in json.loads(sys.stdin.read()):
        try:
            results.append({"value": JOBS[job.pop("do")](**job)})
        except TunewrightError as error:
            results.append({"code": error.exit_code, "line": error.line()})
        except Exception as error:  # as a result, so that the other jobs are still judged
            results.append({"code": 1, "line": "".join(traceback.format_exception(error))})
    print(json.dumps(results))


def wrap(base: str, folder: str, method: str, plant: list[str]) -> None:
    """A model on a base of the hub, nudged as training would, as the model/ of a run folder; files planted in it."""
    import torch

    from tests.models.made import LABELS
    from tunewright.models.finding import from_hub
    from tunewright.models.heads import head_modules
    from tunewright.models.loading import load_base
    from tunewright.models.saving import save_model
    from tunewright.models.trainable import TrainableSpec, choose

    found = from_hub(base)
    loaded = load_base(found, LABELS, seed=1, dropout=0.0)
    model = choose(loaded.model, TrainableSpec(method), head_modules(loaded.model, loaded.new_parameters)).model
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape) if parameter.requires_grad else 0
    save_model(model.eval(), loaded.tokenizer, Path(folder) / "model", base=found, labels=LABELS, max_length=32,
               truncate="left")  # fmt: skip
    for name in plant:
        (Path(folder) / "model" / name).write_bytes(b"not for the hub")
    facts = {"name": base, "hub_id": found.hub_id, "revision": found.revision, "path": found.path, "method": method}
    path = Path(folder) / "run.json"
    run = json.loads(path.read_text())
    path.write_text(json.dumps(run | {"model": run["model"] | facts}))


def push(folder: str, repo: str, **settings: Any) -> str:
    from tunewright.serving.hub import push as upload

    return upload(Path(folder), repo, **settings)


def predict(model: str, texts: list[str]) -> list[Any]:
    import tunewright as tw

    return [[said.prediction, dict(said.probabilities)] for said in tw.load(model).predict(texts)]


def execute(code: str) -> str:
    """What the code of a card prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    return printed.getvalue()


def token(value: str | None) -> None:
    os.environ.pop("HF_TOKEN", None)
    if value is not None:
        os.environ["HF_TOKEN"] = value


JOBS: dict[str, Any] = {"wrap": wrap, "push": push, "predict": predict, "execute": execute, "token": token}

if __name__ == "__main__":
    main()
