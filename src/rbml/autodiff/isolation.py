"""A copy of a model that can be run as a pure function, in a mode that is the same at every call.

Every layer keeps the mode in which the model was given, except

- batch norm: which statistics it uses is an argument of every call;
- dropout of PyTorch's own layers, attention and recurrent ones included: switched off, with a warning;
- instance norm: always by the statistics of the instance, as in training;
- attention and transformer layers: always by their ordinary path, never the fused one for inference.

What cannot be a pure function is refused: power iteration of spectral norm, backward hooks, lazy parameters,
parameters that are kept in plain lists.
"""

from __future__ import annotations

import copy
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.utils._pytree import tree_leaves

from rbml.errors import UsageError

TRAINS = "trains_in_a_learner"
"""The attribute of a layer that fixes its mode: ``train()`` and ``eval()`` of a learner change nothing."""

_ATTENTION = (
    *(nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer),
    *(nn.TransformerEncoder, nn.TransformerDecoder, nn.Transformer),
)


def isolated(module: nn.Module) -> nn.Module:
    """Return a copy of ``module`` that :func:`rbml.autodiff.module.call` can run; the original is left untouched.

    Raises:
        UsageError: naming a layer that cannot be a pure function, and what to do.
    """
    _check(module)
    own = copy.deepcopy(module, _detached(module))
    like = next(own.parameters(), torch.empty(0))
    switched_off = []
    for name, layer in own.named_modules():
        trains = layer.training
        if isinstance(layer, _BatchNorm):
            layer.track_running_stats = False
            if layer.running_mean is None or layer.running_var is None:
                layer.running_mean = torch.zeros(layer.num_features, dtype=like.dtype, device=like.device)
                layer.running_var = torch.ones(layer.num_features, dtype=like.dtype, device=like.device)
        elif isinstance(layer, _InstanceNorm):
            layer.track_running_stats = False
        elif isinstance(layer, _DropoutNd):
            switched_off += [name] if trains and layer.p > 0 else []
            trains = False
        elif isinstance(layer, nn.MultiheadAttention | nn.RNNBase):
            switched_off += [name] if trains and layer.dropout > 0 else []
            layer.dropout = 0.0
        layer.__dict__[TRAINS] = trains or isinstance(layer, _ATTENTION)
    if switched_off:
        warnings.warn(
            f"the model's dropout is switched off ({', '.join(switched_off)}): an engine that replays a step would "
            "draw other numbers. For dropout in the inner loop add rbml.strategy.dropout(rate) to the strategy",
            stacklevel=3,
        )
    return own


def _check(module: nn.Module) -> None:
    """Refuse layers that cannot be run as a pure function."""
    if is_keras(module) or not isinstance(module, nn.Module):
        what = f"a {type(module).__module__}.{type(module).__name__}"
        way_out = (
            "convert it with rbml.keras.from_keras(model), which needs Keras on PyTorch (KERAS_BACKEND=torch); for "
            "Keras on TensorFlow use rbml.keras.MetaModel"
        )
        raise UsageError(
            f"the model is {what}, and a PyTorch module is needed" + (f": {way_out}" if is_keras(module) else "")
        )
    for name, layer in module.named_modules():
        if is_keras(layer):
            raise UsageError(
                f"{name} is a Keras layer ({type(layer).__name__}), which reads its own variables, so that nothing "
                "would be learned: convert a whole Keras model with rbml.keras.from_keras(model)"
            )
        if any(isinstance(leaf, nn.UninitializedParameter) for leaf in layer.parameters(recurse=False)):
            raise UsageError(f"{name} has no parameters yet: run the model once on an example before you give it")
        hooks = list(layer._forward_pre_hooks.values())
        if layer.training and (isinstance(layer, _SpectralNorm) or any(isinstance(h, SpectralNorm) for h in hooks)):
            raise UsageError(
                f"{name or 'the model'} has spectral norm, whose power iteration rewrites a buffer at every pass, and "
                "a task must not depend on the passes before it: call .eval() on that layer to keep its estimate as it "
                "is, or take it off (torch.nn.utils.remove_spectral_norm, parametrize.remove_parametrizations)"
            )
        for key, value in layer.__dict__.items() if not _is_clean(type(layer).__module__) else ():
            if key not in _OF_MODULES and any(isinstance(leaf, nn.Parameter) for leaf in tree_leaves(value)):
                raise UsageError(
                    f"{name or 'the model'} keeps parameters in its attribute {key!r}, where a task's own cannot take "
                    "their place: use nn.ParameterList or nn.ParameterDict, or read them from their layers"
                )
        if layer._backward_hooks or layer._backward_pre_hooks:
            raise UsageError(
                f"{name or 'the model'} has a backward hook, which torch.func cannot run: remove it (handle.remove()), "
                "and put what it does to gradients into the strategy"
            )


def is_keras(value: Any) -> bool:
    """Return whether something is a Keras layer or model, without importing Keras."""
    return any(kind.__module__.startswith("keras.") and kind.__name__ == "Layer" for kind in type(value).__mro__)


def _detached(module: nn.Module) -> dict[int, Any]:
    """Return a memo for ``deepcopy`` that detaches tensors which an earlier pass left in the module."""
    kept = (leaf for layer in module.modules() for leaf in tree_leaves(layer.__dict__))
    return {id(leaf): leaf.detach().clone() for leaf in kept if isinstance(leaf, Tensor) and not leaf.is_leaf}


def set_modes(layers: Iterable[nn.Module], by_the_batch: bool) -> None:
    """Put every layer of a module into its mode; batch norm uses the statistics of the batch, or those passed."""
    for layer in layers:
        trains = by_the_batch if isinstance(layer, _BatchNorm) else layer.__dict__.get(TRAINS, False)
        if layer.training != trains:
            layer.training = trains


@contextmanager
def unchanged(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Restore, after the code inside, every attribute that a layer has set on itself, and the content of its lists.

    Tensors that a pass leaves in a module (``self.cache = h``) belong to a derivative that is finished by then. Layers
    of PyTorch and rbml leave none, except those with hooks, such as the old weight norm.
    """
    before = [
        (layer, dict(layer.__dict__), [(v, copy.copy(v)) for v in layer.__dict__.values() if type(v) in _CONTAINERS])
        for layer in layers
        if layer._forward_pre_hooks or layer._forward_hooks or not _is_clean(type(layer).__module__)
    ]
    try:
        yield
    finally:
        for layer, attributes, containers in before:
            layer.__dict__.clear()
            layer.__dict__.update(attributes)
            for container, content in containers:
                container.clear()
                (container.extend if isinstance(container, list | deque) else container.update)(content)


_OF_MODULES = set(nn.Module().__dict__)
_CONTAINERS = {list, dict, set, deque}


@cache
def _is_clean(home: str) -> bool:
    return home.startswith(("torch.nn.modules.", "rbml."))


def buffer_copies(layers: Mapping[str, nn.Module], example: Tensor) -> dict[str, Tensor]:
    """Return copies of the buffers that a pass may write into, by name, except those of batch norm.

    They are vectorised over tasks like ``example``; otherwise ``vmap`` would not allow to write into them.
    """
    found = {
        f"{name}.{key}".lstrip("."): leaf
        for name, layer in layers.items()
        if layer._buffers and not isinstance(layer, _BatchNorm | _InstanceNorm)
        for key, leaf in layer._buffers.items()
        if leaf is not None
    }
    if not found:
        return {}
    zero = example.detach().flatten()[:0].sum()
    return {
        name: leaf.logical_or(zero.bool()) if leaf.dtype == torch.bool else leaf + zero.to(leaf.dtype)
        for name, leaf in found.items()
    }


def warn_of_writes(module: nn.Module, copies: dict[str, Tensor]) -> None:
    """Warn if a pass wrote into a buffer; to be called while ``copies`` are still the module's buffers."""
    written = []
    for name, leaf in copies.items():
        owner, _, key = name.rpartition(".")
        now = module.get_submodule(owner)._buffers.get(key)
        if now is not leaf or now._version:
            written.append(name)
    if written:
        warnings.warn(
            f"the model writes into its buffers when it is called ({', '.join(written)}): what it writes is dropped, "
            "since a task must not depend on the passes before it",
            stacklevel=2,
        )
