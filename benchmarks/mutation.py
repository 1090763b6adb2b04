"""Whether the tests would notice: one small change to the code at a time, and the mirror test file run against it.

    python benchmarks/mutation.py                        # the modules below, half an hour on one core
    python benchmarks/mutation.py data/batching.py       # one of them
    python benchmarks/mutation.py data/batching.py:61    # one line of it (or 61-80), with each mutant and its fate

A mutant that no test kills is a survivor: it needs a test, or a reason why it is the same program. Each runs in a
child forked from a process that has imported the heavy libraries and nothing of tunewright, so it costs its tests and
no more. The working tree is never touched: the child imports the changed module in place of the file. SHOW=1 shows
what pytest says.
"""

from __future__ import annotations

import argparse
import ast
import atexit
import contextlib
import copy
import importlib.abc
import importlib.util
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "tunewright"
# What a mistake in would be worst and quietest: masks, batches, splits, guards, gradients, checkpoints.
MODULES: dict[str, tuple[str, ...]] = {
    "data/batching.py": ("tests/data/test_batching.py",),
    "data/splitting.py": ("tests/data/test_splitting.py",),
    "data/checking.py": ("tests/data/test_checking.py",),
    "models/attention.py": ("tests/models/test_attention.py",),
    "models/layers.py": ("tests/models/test_layers.py",),
    "learning/gradients.py": ("tests/learning/test_gradients.py",),
    "learning/checkpoints.py": ("tests/learning/test_checkpoints.py",),
}
HEAVY = (
    "numpy",
    "torch",
    "transformers",
    "peft",
    "datasets",
    "safetensors.torch",
    "hypothesis",
    "pytest",
    "scipy.stats",
)

# ---- mutants ----

COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
COMPUTED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Add,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd, ast.RShift: ast.LShift,
    ast.LShift: ast.RShift,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change: which node of the tree, which of its changes, and how it reads."""

    node: int  # place in the walk over the tree
    change: int
    line: int
    words: str


def mutants(tree: ast.Module) -> list[Mutant]:
    """Every change to every node that decides something; messages, types and docstrings decide nothing."""
    found = []
    for i, node in enumerate(walk(tree)):
        for j, changed in enumerate(changes(node)):
            line = getattr(node, "lineno", 0)
            found.append(Mutant(i, j, line, f"{_shown(node)}  ->  {_shown(changed)}"))
    return found


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes in a fixed order, without those that decide nothing."""
    yield node
    if isinstance(node, ast.JoinedStr):
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list") or (isinstance(node, ast.Raise) and name == "exc"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_docstring(child) and not _is_for_types(child):
                yield from walk(child)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def changes(node: ast.AST) -> list[ast.AST]:
    """What the node could be by mistake."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in COMPARED:
            return [_with(node, ops=[COMPARED[type(op)]()])]
        case ast.BinOp(op=op) if type(op) in COMPUTED:
            return [_with(node, op=COMPUTED[type(op)]())]
        case ast.AugAssign(op=op) if type(op) in COMPUTED:
            return [_with(node, op=COMPUTED[type(op)]()), ast.Pass()]
        case ast.BoolOp(op=op):
            return [_with(node, op=ast.Or() if isinstance(op, ast.And) else ast.And())]
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
            return [node.operand]
        case ast.If(test=test) | ast.IfExp(test=test) if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp):
            return [_with(node, test=ast.UnaryOp(ast.Not(), test))]
        case ast.Constant(value=bool(value)):
            return [ast.Constant(not value)]
        case ast.Constant(value=int(value) | float(value)):
            return [ast.Constant(value + 1)]
        case ast.Constant(value=str(value)) if value:
            return [ast.Constant(f"XX{value}")]
        case ast.Return(value=value) if value is not None and not _is_none(value):
            return [_with(node, value=ast.Constant(None))]
        case ast.Raise() | ast.Expr(value=ast.Call() | ast.Yield()):
            return [ast.Pass()]
        case ast.Call(keywords=keywords) if any(word.arg for word in keywords):
            return [_with(node, keywords=keywords[:i] + keywords[i + 1 :]) for i, w in enumerate(keywords) if w.arg]
        case ast.Break():
            return [ast.Continue()]
        case ast.Continue():
            return [ast.Break()]
    return []


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _with(node: Any, **fields: Any) -> Any:
    """A shallow copy with other fields."""
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _shown(node: ast.AST) -> str:
    """The first line of the node's code, short."""
    text = ast.unparse(ast.fix_missing_locations(node)).splitlines()[0]
    return text if len(text) <= 90 else f"{text[:89]}…"


def mutated(source: str, mutant: Mutant) -> ast.Module:
    """The whole module with the one change."""
    tree = ast.parse(source)
    old = list(walk(tree))[mutant.node]
    new = changes(old)[mutant.change]

    class Change(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            return ast.copy_location(new, old) if node is old else self.generic_visit(node)

    return ast.fix_missing_locations(Change().visit(tree))


# ---- one mutant, one child ----


class Substitute(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the changed tree under the name of the module."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self.name, self.path, self.tree = name, path, tree

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.tree, str(self.path), "exec"), module.__dict__)


def outcome(path: Path, tree: ast.Module | None, tests: tuple[str, ...], limit: float) -> tuple[str, float]:
    """`survived`, `killed` or `hung`, and the seconds it took; without a tree, the code as it is."""
    begin, child = time.monotonic(), os.fork()
    if child == 0:
        _run_tests(path, tree, tests, None)
    while time.monotonic() - begin < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "killed" if os.waitstatus_to_exitcode(status) else "survived", time.monotonic() - begin
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hung", limit


def warm_up(tests: tuple[str, ...]) -> None:
    """Import what else the tests import, so that no child has to; of tunewright and the tests themselves, nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _run_tests(SOURCE, None, tests, writing)
    os.close(writing)
    with os.fdopen(reading) as stream:
        names = stream.read().split()
    os.waitpid(child, 0)
    for name in names:
        with contextlib.suppress(Exception):  # a module that only its own package may import
            importlib.import_module(name)


def _run_tests(path: Path, tree: ast.Module | None, tests: tuple[str, ...], imported: int | None) -> None:
    """In the child: the tests, quietly; never returns. `imported`: where to write which other modules they import."""
    import pytest

    code = 1
    try:
        os.setpgid(0, 0)  # so that a hanging one goes with all that it started
        if not os.environ.get("SHOW"):
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
        if tree is not None:
            name = ".".join(("tunewright", *path.relative_to(SOURCE).with_suffix("").parts))
            sys.meta_path.insert(0, Substitute(name, path, tree))
        options = ["-x", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-o", "addopts=", "--timeout=60"]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what is imported already
        code = int(pytest.main([*options, *tests]))
        atexit._run_exitfuncs()
        if imported is not None:
            others = [name for name in sys.modules if name.split(".")[0] not in ("tunewright", "tests", "__main__")]
            os.write(imported, "\n".join(others).encode())
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


# ---- all of them ----


def look_at(module: str, lines: range | None) -> list[Mutant]:
    """Run a module's mutants; the survivors."""
    path, tests = SOURCE / module, MODULES[module]
    source = path.read_text(encoding="utf-8")
    warm_up(tests)
    whole, seconds = outcome(path, None, tests, 300)
    if whole != "survived":
        sys.exit(f"{module}: its tests fail as it is; see: python -m pytest {' '.join(tests)}")
    found = [m for m in mutants(ast.parse(source)) if lines is None or m.line in lines]
    print(f"{module}: {len(found)} mutants, {seconds:.1f} s for the tests", flush=True)
    survivors = []
    for mutant in found:
        result, _ = outcome(path, mutated(source, mutant), tests, 10 + 3 * seconds)
        if result == "survived":
            survivors.append(mutant)
        if result == "survived" or lines is not None:
            print(f"  {result}  {module}:{mutant.line}  {mutant.words}", flush=True)
    print(f"{module}: {len(found) - len(survivors)} of {len(found)} noticed", flush=True)
    return survivors


def main() -> None:
    """Every module asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("places", nargs="*", default=list(MODULES), metavar="MODULE[:LINE[-LINE]]")
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT / "src"), str(ROOT)]
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    for name in HEAVY:
        importlib.import_module(name)
    for place in parser.parse_args().places:
        module, _, line = place.partition(":")
        if module not in MODULES:
            sys.exit(f"{module} isn't in the table MODULES; it has {', '.join(MODULES)}")
        look_at(module, _lines(line) if line else None)


def _lines(text: str) -> range:
    """61, or 61-80."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


if __name__ == "__main__":
    main()
