"""From a recipe's word to its task: the one place that knows them all."""

from __future__ import annotations

from tunewright.data.examples import Splits
from tunewright.recipe import Recipe
from tunewright.tasks.task import Task


def open_task(recipe: Recipe, splits: Splits) -> Task:
    """The recipe's task on these sources, looked through once. Raises DataError, RecipeError."""
    if recipe.task == "classify":
        from tunewright.tasks.classify import Classify  # late: a run needs the code of one task

        return Classify.of(recipe, splits)
    from tunewright.tasks.write import Write

    return Write.of(recipe, splits)
