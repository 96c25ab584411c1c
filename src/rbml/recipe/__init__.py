"""Recipes: everything that a run depends on, as a tree of named choices. Nothing here imports PyTorch but ``build``."""

try:
    import pydantic as _pydantic  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("recipes need pydantic: pip install 'rbml[cli]'", name="pydantic") from error

from rbml.recipe.sections import Choice, Data, Execution, Inputs, Outer, Recipe, StrategyChoice, TaskChoice

__all__ = ["Choice", "Data", "Execution", "Inputs", "Outer", "Recipe", "StrategyChoice", "TaskChoice"]
