"""The shape of the package, as DESIGN.md draws it: who may import whom, what stays light, which names are public."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tunewright
from tests import whole

SOURCE = whole.ROOT / "src" / "tunewright"
# From the bottom up: a layer imports only what stands on its own line or above it.
LAYERS = [
    [
        "errors",
        "runtime",
        "progress",
        "recipe",
        "recipe_part",
        "recipe_align",
        "recipe_mistakes",
        "recipe_files",
        "defaults",
        "durable",
        "locking",
    ],
    ["scanning"],
    ["data"],
    ["models"],
    ["learning"],
    ["evaluation"],
    ["planning"],
    ["serving"],
    [
        "recording",
        "summaries",
        "runs",
        "opening",
        "stages",
        "tasks",
        "describing",
        "judging",
        "costing",
        "planned",
        "doctor",
        "pipeline",
        "chain",
        "library",
    ],
    ["choosing"],
    ["web", "cli", "__main__", "__init__"],
]
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}
FILES = sorted(SOURCE.rglob("*.py"))
HEAVY = {"torch", "transformers", "peft", "datasets", "pandas", "pyarrow", "sklearn", "tokenizers", "safetensors"}


def imports(path: Path, *, late: bool = True) -> Iterator[tuple[str, int]]:
    """Modules that a file imports, with the line; `late`: inside functions too. Imports for types don't count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or "", node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif late or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def layer(module: str) -> str | None:
    """`data` of `tunewright.data.labels`; None for other packages and for names of the package itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == "tunewright" and len(parts) > 1 and parts[1] in HEIGHT else None


def own(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def test_every_file_has_a_place():
    assert {own(path) for path in FILES} <= HEIGHT.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down(path):
    for module, line in imports(path):
        target = layer(module)
        if target is not None:
            assert HEIGHT[target] <= HEIGHT[own(path)], f"{path.name}:{line} imports {module}, which stands above it"


def test_the_loop_imports_no_evaluation():
    """It receives an `evaluate` callable."""
    for path in (SOURCE / "learning").glob("*.py"):
        assert not [m for m, _ in imports(path) if layer(m) in ("evaluation", "serving")], path


def test_data_imports_no_torch_but_for_batches():
    for path in (SOURCE / "data").glob("*.py"):
        if path.name != "batching.py":
            found = [f"{m}:{n}" for m, n in imports(path) if m.split(".")[0] == "torch"]
            assert not found, (path, found)


@pytest.mark.parametrize("folder", ["data", "cli", "."])
def test_heavy_libraries_are_imported_late(folder):
    light = {"__init__", "__main__", "recipe", "recipe_files", "recipe_mistakes", "errors", "progress", "runtime",
             "library", "runs", "recording", "opening", "defaults"}  # fmt: skip
    for path in (SOURCE / folder).glob("*.py"):
        if path.stem == "batching" or (folder == "." and path.stem not in light):
            continue
        found = [f"{m}:{n}" for m, n in imports(path, late=False) if m.split(".")[0] in HEAVY]
        assert not found, (path, found)


@pytest.mark.parametrize(
    "statement", ["import tunewright", "import tunewright.recipe_files", "import tunewright.library",
                  "import tunewright.cli.app", "import tunewright.data.preparing"],
)  # fmt: skip
def test_imports_load_no_torch(statement):
    code = f"import sys; {statement}; sys.exit(' '.join({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], env=whole.child_environment(), capture_output=True, text=True)
    assert done.stderr.strip() == "", done.stderr


def test_public_names():
    assert tunewright.__all__ == sorted(tunewright.__all__)
    for name in tunewright.__all__:
        assert getattr(tunewright, name).__name__ == name
    public = {n for n in vars(tunewright) if not n.startswith("_")} - {"annotations", "import_module", "Any"}
    modules = {path.stem for path in FILES} | {path.name for path in SOURCE.iterdir() if path.is_dir()}
    assert public - modules - {"TYPE_CHECKING"} <= set(tunewright.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        tunewright.trian  # noqa: B018


def test_nothing_runs_a_strangers_code():
    """No pickle, no torch.load, no shell, no remote code, no bare except that swallows."""
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ("eval", "exec", "torch.load", "os.system", "yaml.unsafe_load"), (path, node.lineno)
                for word in node.keywords:
                    said = ast.unparse(word.value)
                    assert (word.arg, said) not in (("trust_remote_code", "True"), ("shell", "True")), path
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path}:{node.lineno} bare except"
        assert not [m for m, _ in imports(path) if m.split(".")[0] in ("pickle", "dill", "joblib", "marshal")], path


def test_files_and_functions_stay_readable():
    """At most 400 lines a file and 60 a function; nothing named after nothing."""
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 400, path
        assert path.stem not in ("utils", "common", "misc", "helpers"), path
        tree = ast.parse(text)
        assert ast.get_docstring(tree) or not text.strip(), f"{path} has no docstring"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno <= 60, f"{path}:{node.lineno} {node.name}"
