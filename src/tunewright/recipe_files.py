"""Recipes as files: YAML in, `-s key=value` on top, one-line errors with the nearest name; resolved YAML out.

`recipe` declares the settings; this file only reads, checks and writes them.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from tunewright.errors import RecipeError, did_you_mean
from tunewright.recipe import Recipe
from tunewright.recipe_mistakes import nearest_setting, recipe_error, yaml_problem

MAX_BYTES = 1 << 20


class _Loader(yaml.SafeLoader):
    """Safe YAML without duplicate keys and aliases, in which 1e-4 is a number."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not allowed in a recipe", problem_mark=mark)
        event = self.peek_event()
        if (tag := getattr(event, "tag", None)) not in (None, "!"):  # PyYAML's own tags fail in many ways
            tag = str(tag).replace("tag:yaml.org,2002:", "!!")
            problem = f"the tag {tag} is not read here; write the value itself"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f'"{key.value}" is given twice', problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back: the text "1e-4" in quotes, a line break as \\n."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeDumper.yaml_implicit_resolvers.items()}
_Dumper.add_representer(str, _Dumper.represent_text)
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a YAML file with overrides on top. Paths in it are relative to its folder. Raises RecipeError."""
    path = Path(path)
    values = read_yaml(path)
    recipe = build_recipe(values, overrides, where=str(path))
    return anchored(recipe, path.parent, overridden={o.partition("=")[0] for o in overrides})


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    try:
        raw = path.read_bytes()
        if len(raw) > MAX_BYTES:
            raise RecipeError(f"a recipe is a page of YAML, this file has {len(raw):,} bytes", where=str(path))
        values = yaml.load(raw.decode("utf-8-sig"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else [])
        raise RecipeError(f"no such recipe.{near}", where=str(path)) from None
    except OSError as error:
        raise RecipeError(f"can't be read ({error.strerror})", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"byte {error.start} is not UTF-8; save the recipe as UTF-8", where=str(path)) from None
    except RecipeError:
        raise
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RecipeError(yaml_problem(error), where=_yaml_place(path, error)) from None
    if not isinstance(values, dict):
        raise RecipeError("expected `key: value` lines, starting with task, model and data", where=str(path))
    return values


def build_recipe(values: Mapping[str, Any], overrides: Sequence[str] = (), where: str | None = None) -> Recipe:
    """A checked recipe from nested values and `a.b=c` overrides. Raises RecipeError naming the field."""
    merged = _copied(values)
    for override in overrides:
        _apply(merged, override)
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        raise recipe_error(error, where, _paths()) from None


def dump(recipe: Recipe, origins: Mapping[str, str] | None = None) -> str:
    """YAML of a recipe; `origins` puts where each value came from at the line's end."""
    lines: list[str] = []
    for key, value in recipe.model_dump(mode="json").items():
        if isinstance(value, dict):
            lines.append(f"{key}:")
            lines += [_line(f"{key}.{name}", name, v, origins, "  ") for name, v in value.items()]
        else:
            lines.append(_line(key, key, value, origins, ""))
    return "\n".join(lines) + "\n"


def _line(path: str, name: str, value: Any, origins: Mapping[str, str] | None, indent: str) -> str:
    text = yaml.dump({name: value}, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=10**9)
    text = text.strip()[1:-1]
    origin = (origins or {}).get(path)
    return f"{indent}{text}" + (f"  # {origin}" if origin else "")


# ---- the reference: one entry per setting ----


@dataclass(frozen=True)
class FieldDoc:
    """One setting, as the reference page and `schema --field` show it."""

    path: str
    type: str
    default: str
    help: str


def field_docs() -> list[FieldDoc]:
    """Every setting, in the order of the recipe."""
    return list(_docs(Recipe, ""))


def _paths() -> list[str]:
    return [doc.path for doc in field_docs()]


def schema() -> dict[str, Any]:
    """JSON Schema of a recipe."""
    return Recipe.model_json_schema()


def _docs(model: type[BaseModel], prefix: str) -> Iterator[FieldDoc]:
    for name, info in model.model_fields.items():
        section = _section(info.annotation)
        if section is not None:
            yield from _docs(section, f"{prefix}{name}.")
            continue
        default = (
            "required" if info.is_required() else yaml.safe_dump(info.default, default_flow_style=True).split("\n")[0]
        )
        yield FieldDoc(f"{prefix}{name}", _type_words(info.annotation), default, info.description or "")


def _section(annotation: Any) -> type[BaseModel] | None:
    """The part that stands under a setting, alone or in a list."""
    members = [annotation, *(a for a in typing.get_args(annotation) if typing.get_origin(a) is list)]
    for member in members:
        inner = typing.get_args(member)[0] if typing.get_origin(member) is list else member
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            return inner
    return None


def _type_words(annotation: Any) -> str:
    """`int | auto`, `linear | cosine`, in words a person reads."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _type_words(typing.get_args(annotation)[0])
    if origin is typing.Literal:
        return " | ".join(str(a) for a in typing.get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type_words(a) for a in typing.get_args(annotation) if a is not type(None))
    if origin is list:
        return f"list of {_type_words(typing.get_args(annotation)[0])}"
    if origin is dict:
        key, value = typing.get_args(annotation)
        return f"{{{_type_words(key)}: {_type_words(value)}}}"
    if issubclass(annotation, BaseModel):
        return "as one of `reward`"
    return {"str": "text", "float": "number", "int": "integer", "bool": "true | false"}.get(annotation.__name__, "")


# ---- parts ----


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copied(v) if isinstance(v, Mapping) and k in _PARTS else v for k, v in values.items()}


_PARTS = {name for name in Recipe.model_fields if name in ("data", "trainable", "training", "align", "evaluation")}

_LISTS = ("reward", "reward.rules")  # may be given whole, or by the settings of their only member


def _apply(values: dict[str, Any], override: str) -> None:
    """Put one `a.b=c` into the nested values."""
    key, equals, text = override.partition("=")
    known = _paths()
    if not equals:
        raise RecipeError(f'"-s {override}" has no "="; write -s training.learning_rate=1e-4', field=key)
    if key not in known and key not in _LISTS:
        raise RecipeError(f'"{key}" is not a setting.{nearest_setting(key, known)}', field=key)
    try:
        value = yaml.load(text, Loader=_Loader) if text else ""  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError):
        value = text
    *parents, last = key.split(".")
    for name in parents:
        values[name] = _only(values.get(name), name, key)
        values = values[name]
    values[last] = value


def _only(there: Any, name: str, key: str) -> dict[str, Any]:
    """The settings under a name, in a copy: those of a list's only member, none where nothing is there."""
    if isinstance(there, list) and len(there) > 1:
        says = f'"{name}" is a list of {len(there)}, and "{key}" doesn\'t say of which; change it in the recipe'
        raise RecipeError(says, field=key)
    there = there[0] if isinstance(there, list) and there else there
    return dict(there) if isinstance(there, Mapping) else {}


def _yaml_place(path: Path, error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"{path}:{mark.line + 1}" if mark is not None else str(path)


def anchored(recipe: Recipe, folder: Path, overridden: Collection[str] = ()) -> Recipe:
    """Relative paths in a recipe file start at its folder, if that is where the file is."""
    changes: dict[str, dict[str, Any]] = {}
    for part, name in (("data", "train"), ("data", "validation"), ("align", "ptx")):
        value = getattr(getattr(recipe, part), name)
        if isinstance(value, str) and f"{part}.{name}" not in overridden and not Path(value).exists():
            beside = folder / value
            if beside.exists():
                changes.setdefault(part, {})[name] = str(beside)
    return recipe.model_copy(update={p: getattr(recipe, p).model_copy(update=c) for p, c in changes.items()})
