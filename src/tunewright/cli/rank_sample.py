"""`tunewright rank sample`: completions of prompts, by one or several models, for people to rank.

Finds out who writes and how the prompts are read, then calls `serving.drawing`. Prints what was drawn to stderr.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunewright.cli import output
from tunewright.cli.options import DEFAULT_RUNS, AsJson, MaxNewTokens, Quiet, RunsFolder, TopP, new_lines
from tunewright.cli.train import is_recipe
from tunewright.data.judgement_records import counted
from tunewright.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from tunewright.data.judgements import Judgements
    from tunewright.data.written import Format
    from tunewright.recipe import Recipe
    from tunewright.serving.drawing import Asked, Drawn

MOST = 9  # completions of a prompt: there is a number key for each
_PROMPTS_NAMED = "name the file of prompts with --prompts"

NewStore = Annotated[Path, typer.Option("-o", "--output", metavar="DB", help="The store: made, or added to.")]


def sample(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|BASE|RECIPE...",
            help="Who writes: runs, base models, a recipe's model; human, or human:COLUMN, for what the file holds.",
        ),
    ],
    prompts: Annotated[
        str | None, typer.Option(metavar="FILE", help="Rows to answer; default: the training data of the recipe.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("-k", metavar="K", min=1, help="Completions of each model; default: 4 in all.")
    ] = None,
    target: NewStore = Path("judgements.db"),
    template: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT|FILE", callback=new_lines, help="The prompt over the columns: 'Q: {question}\\nA:'."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Take the first N rows only.")] = None,
    temperature: Annotated[float, typer.Option(metavar="T", min=0, help="1 draws as the model is.")] = 1.0,
    top_p: TopP = None,
    max_new_tokens: MaxNewTokens = None,
    seed: Annotated[int, typer.Option(metavar="S", min=0, help="The same seed draws the same.")] = 0,
    runs: RunsFolder = DEFAULT_RUNS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Draw completions of prompts, for people to rank. Started again after an interruption, it goes on."""
    from tunewright.data.judgements import Judgements
    from tunewright.data.sources import open_any
    from tunewright.serving.drawing import ask

    wanted = _Wanted.of(models, prompts, template, count, runs)
    given = {"temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens, "seed": seed}
    sampling = {name: value for name, value in given.items() if value is not None}
    source = open_any(Path(wanted.prompts).expanduser())
    next(iter(source.rows()), None)  # says what is wrong with the file before there is a store
    with Judgements.open(target) as store:
        asked = ask(
            store, source, template=wanted.template, completion=wanted.completion, kept=wanted.kept, limit=limit
        )
        say(quiet or as_json, [*asked.said, counted(len(asked.prompts), "prompt")])
        drawn = {who: _drawn(store, who, asked, wanted, sampling, quiet or as_json, runs) for who in wanted.models}
        few = _too_few(store, asked)
    facts = {"output": str(target), "prompts": len(asked.prompts), "too_few": few}
    if as_json:
        who = {name: asdict(found) for name, found in drawn.items()}
        output.print_json({"run": None, "state": "succeeded", "metrics": {}, **facts, "models": who})
    elif quiet:
        print(target)
    else:
        told = f" {counted(few, 'prompt')} with fewer than two different completions: nobody is asked to rank them"
        output.show([*([told] if few else []), f" next: tunewright rank serve {target}"])


@dataclass(frozen=True)
class _Wanted:
    """Who writes, what is asked, and how it is read."""

    models: tuple[str, ...]
    prompts: str
    template: str | None
    completion: str | None  # column that the template ends in, where it isn't of the prompt alone
    count: int
    kept: Format | None

    @classmethod
    def of(cls, names: list[str], prompts: str | None, template: str | None, count: int | None, runs: Path) -> _Wanted:
        """UsageError for what can't be, before anything is made."""
        models: list[str] = []
        completion = None
        for name in names:
            if is_recipe(name):
                recipe = _recipe(name)
                models, prompts = [*models, str(recipe.model)], prompts or recipe.data.train
                if template is None:
                    template, completion = recipe.data.template, _completion(recipe)
            else:
                models.append(name)
        if prompts is None:
            raise UsageError(_PROMPTS_NAMED, field="--prompts")
        if repeated := [name for name in models if models.count(name) > 1]:
            raise UsageError(f'"{repeated[0]}" is named twice; name each model once')
        writing = [name for name in models if not _is_human(name)]
        each = count or max(1, 4 // max(1, len(writing)))
        total = each * len(writing) + (len(models) - len(writing))
        if total > MOST:
            says = f"{total} completions of each prompt are more than the {MOST} that a person can rank; lower -k"
            raise UsageError(says, field="-k")
        folders = [folder for name in writing if (folder := _folder(name, runs)) is not None]
        return cls(tuple(models), prompts, template, completion, each, _kept(folders))


def _recipe(name: str) -> Recipe:
    """A recipe that names a model."""
    from tunewright.recipe_files import load_recipe

    recipe = load_recipe(Path(name), [])
    if recipe.model in (None, "auto"):
        raise UsageError("names no model to sample from; name a model or a run", where=name, field="model")
    return recipe


def _completion(recipe: Recipe) -> str | None:
    """The column of the completion, which the template of a task that writes ends in."""
    from tunewright.data.sources import open_any
    from tunewright.data.written import recognise

    if recipe.task != "generate" or recipe.data.template is None:
        return None
    source = open_any(Path(recipe.data.train).expanduser())
    reading = recognise(source, template=recipe.data.template, completion=recipe.data.completion).reading
    return reading.template.completion if reading.kind == "template" else None


def _is_human(name: str) -> bool:
    return name == "human" or name.startswith("human:")


def _folder(name: str, runs: Path) -> Path | None:
    """The folder of a run's model, or a model's; None for a base that is found by its name."""
    from tunewright.models.finding import NAMES
    from tunewright.models.gguf import is_gguf
    from tunewright.runs import find_run

    if Path(name).is_dir() and not (Path(name) / "run.json").exists():
        return Path(name)
    try:
        return find_run(name.removeprefix("run:"), runs).model_folder
    except UsageError as error:
        if is_gguf(name) or name in NAMES or (name.count("/") == 1 and not Path(name).exists()):
            return None
        raise UsageError(f"{error.message}{did_you_mean(name, ['human', *NAMES])}") from None


def _kept(folders: list[Path]) -> Format | None:
    """The format of the first model that kept one: all are asked in it."""
    from tunewright.serving.drawing import kept_format

    return next((form for folder in folders if (form := kept_format(folder)) is not None), None)


def _origin(name: str, runs: Path) -> str:
    """What a model is called in the store."""
    from tunewright.runs import find_run

    try:
        ref = find_run(name.removeprefix("run:"), runs)
    except UsageError:
        return name
    return f"run:{ref.folder.name}" + (f":{ref.checkpoint}" if ref.checkpoint else "")


def _drawn(
    store: Judgements, name: str, asked: Asked, wanted: _Wanted, sampling: dict[str, Any], silent: bool, runs: Path
) -> Drawn:
    from tunewright.library import load
    from tunewright.serving.answering import needs_writer
    from tunewright.serving.drawing import draw, take

    if _is_human(name):
        found = take(store, asked, name.partition(":")[2] or None)
    else:
        writer = needs_writer(load(name.removeprefix("run:"), runs), "rank sample")
        shown = _Counter(name, silent)
        found = draw(store, writer, _origin(name, runs), asked, wanted.count, sampling, shown)
        shown.end()
    say(silent, [f"{name}: {_words(found)}"])
    return found


class _Counter:
    """How far a model has come, on one line of a terminal; nothing elsewhere."""

    def __init__(self, name: str, silent: bool) -> None:
        self.name = name
        self.is_live = output.is_live(sys.stderr) and not silent

    def __call__(self, done: int, total: int) -> None:
        if self.is_live:
            sys.stderr.write(f"\r {self.name}: {done:,} of {total:,} completions")
            sys.stderr.flush()

    def end(self) -> None:
        if self.is_live:
            sys.stderr.write("\r\x1b[K")


def _words(found: Drawn) -> str:
    said = [counted(found.drawn, "completion")]
    said += [f"{found.known:,} were here already"] if found.known else []
    said += [f"{found.repeated:,} say what another of the same prompt says"] if found.repeated else []
    said += [f"{found.empty:,} empty ones left out"] if found.empty else []
    said += [f"{counted(found.cut, 'prompt')} too long, and cut"] if found.cut else []
    return ", ".join(said)


def _too_few(store: Judgements, asked: Asked) -> int:
    return sum(len(store.completions(prompt_id)) < 2 for prompt_id, _ in asked.prompts)


def say(silent: bool, sentences: list[str]) -> None:
    if not silent:
        output.show([f" {sentence}" for sentence in sentences], sys.stderr)
