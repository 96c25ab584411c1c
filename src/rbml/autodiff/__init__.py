"""Derivatives beyond ``torch.func``: products of second derivatives, tasks side by side, modules as functions."""

from rbml.autodiff.alone import gradient_and_pull
from rbml.autodiff.compiled import Compiled
from rbml.autodiff.over_tasks import WHOLE, OverTasks, Shard, Whole
from rbml.autodiff.products import Mode, grad_product

__all__ = ["WHOLE", "Compiled", "Mode", "OverTasks", "Shard", "Whole", "grad_product", "gradient_and_pull"]
