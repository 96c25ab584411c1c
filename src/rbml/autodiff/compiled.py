"""A function of tensors traced once, simplified, and compiled or replayed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, func, fx
from torch._guards import TracingContext, tracing
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map, tree_structure, tree_unflatten

from rbml.autodiff.flat import Form, flattened, form_of
from rbml.devices import type_of_products
from rbml.errors import UsageError
from rbml.operators import convolution as _convolution  # noqa: F401  registers the operators of _COPIES
from rbml.operators.alone import is_alone

KEPT = 2**28
"""How many bytes of results a simplified trace may keep rather than compute them twice."""

NEEDED = "compile='whole' and 'step' need a C++ compiler, such as g++: install one, or use compile='trace'"

aten = torch.ops.aten
_ZEROS = {aten.zeros, aten.zeros_like, aten.new_zeros, aten._efficientzerotensor}
_MOVES = {
    *(aten.alias, aten.clone, aten.expand, aten.permute, aten.reshape, aten.select, aten.slice, aten.squeeze, aten.t),
    *(aten.transpose, aten.unsqueeze, aten.view, aten._unsafe_view),
}
_COPIES = {torch.ops.rbml.patches, torch.ops.rbml.overlap}
_PRODUCTS = {aten.mm, aten.bmm}
_WRITES = {aten.index_add, aten.index_put, aten.scatter, aten.scatter_add, aten.scatter_reduce}


class Compiled:
    """Traces a function of tensors once for every set of shapes, compiles it or not, and keeps the result.

    ``torch.compile`` cannot follow the nested transforms of ``torch.func`` in a hypergradient, so they are traced away
    first (docs/facts.md). Everything else that the function reads is fixed when it is traced.

    Args:
        compiler: whether the trace is compiled, which takes longer and needs a C++ compiler; otherwise its operators
            are called one after another, without the transforms around them.

    Attributes:
        operators: how many operators all traces have.
    """

    def __init__(self, compiler: bool = True) -> None:
        """Begin without any graph."""
        self.compiler = compiler
        self.operators = 0
        self._graphs: dict[Any, tuple[Callable[..., Any], Form]] = {}

    def __reduce__(self) -> tuple[type[Compiled], tuple[bool]]:
        return Compiled, (self.compiler,)  # copies and pickles compile anew

    def __call__(self, function: Callable[..., Any], *arguments: Any, variant: Any = None) -> Any:
        """Return ``function(*arguments)``.

        Args:
            function: what is compiled, once for every set of shapes and every variant.
            *arguments: trees of tensors.
            variant: a hashable value of everything else that changes the function.

        Raises:
            UsageError: if there is no C++ compiler.
        """
        return self.prepared(function, *arguments, variant=variant)()

    def prepared(self, function: Callable[..., Any], *arguments: Any, variant: Any = None) -> Callable[[], Any]:
        """Return :meth:`__call__` as something to call later, also in another thread.

        Whatever must be traced or compiled is so before this returns: that is not possible in several threads at once.
        """
        leaves = [leaf.contiguous() for leaf in flattened(arguments)]  # strides are those that were traced
        # One of several tasks has a thread of its own.
        graph, form = self.graph(function, leaves, tree_structure(arguments), variant, int(is_alone()))
        return lambda: form(iter(graph(*leaves)))

    def graph(
        self, function: Callable[..., Any], leaves: Sequence[Tensor], spec: TreeSpec, variant: Any, threads: int = 0
    ) -> tuple[Callable[..., Any], Form]:
        """Return what computes the leaves of a result from those of the arguments, and gives the result its form.

        Args:
            function: as of :meth:`__call__`.
            leaves: of the arguments, contiguous.
            spec: the form of the arguments.
            variant: as of :meth:`__call__`.
            threads: of one call on a processor; 0: as many as PyTorch has.
        """
        threads = threads or torch.get_num_threads()
        shapes = ((leaf.shape, leaf.dtype, leaf.device) for leaf in leaves)
        key = (variant, is_alone(), type_of_products(), threads, *shapes)
        if key not in self._graphs:
            self._graphs[key] = self._made(function, leaves, spec, threads)
        return self._graphs[key]

    def _made(
        self, function: Callable[..., Any], leaves: Sequence[Tensor], spec: TreeSpec, threads: int
    ) -> tuple[Callable[..., Any], Form]:
        """Trace and compile."""
        forms: list[TreeSpec] = []

        def flat(*leaves: Tensor) -> list[Tensor]:
            results, form = tree_flatten(function(*tree_unflatten(leaves, spec)))
            forms.append(form)
            return results

        recorded = traced if self.compiler and not is_alone() else replayed  # the former cannot follow torch.autograd
        graph = recorded(flat, *leaves)
        self.operators += len(graph.graph.nodes)
        if not self.compiler:
            return graph.forward, form_of(forms[-1])
        native = all(leaf.device.type == "cpu" for leaf in leaves)
        return _native(graph, leaves, threads) if native else _compiled(graph), form_of(forms[-1])


def is_replayed(compiled: object) -> bool:
    """Return whether graphs are kept that are run operator by operator, without a compiler."""
    return isinstance(compiled, Compiled) and not compiled.compiler


def _compiled(graph: fx.GraphModule) -> Callable[..., Any]:
    """Return a graph that is compiled when it is called for the first time."""
    from torch._inductor.exc import InvalidCxxCompiler  # noqa: PLC0415  it takes as long to load as PyTorch

    compiled = torch.compile(graph, fullgraph=True)

    def run(*leaves: Tensor) -> Any:
        try:
            return compiled(*leaves)
        except InvalidCxxCompiler as error:
            raise UsageError(NEEDED) from error

    return run


def _native(graph: fx.GraphModule, leaves: Sequence[Tensor], threads: int) -> Callable[..., Any]:
    """Return a graph as compiled code for tensors like these leaves, on a processor.

    A call takes half as long as one through ``torch.compile``, which looks at all tensors again, and gives up the
    interpreter's lock (``cpp_wrapper``), so that others run beside it. Convolutions stay in the layout that they were
    traced with: channels last, which the compiler would choose, is slower here (docs/performance.md).

    What is compiled is kept on disk by the compiler, which needs the context of :func:`tracing` for that.

    Raises:
        UsageError: if there is no C++ compiler.
    """
    from torch._inductor import compile as compile_graph  # noqa: PLC0415  it takes as long to load as PyTorch
    from torch._inductor.exc import InvalidCxxCompiler  # noqa: PLC0415
    from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC0415
    from torch.fx.experimental.symbolic_shapes import ShapeEnv  # noqa: PLC0415

    options = {"cpp_wrapper": True, "cpp.threads": threads, "layout_optimization": False}
    for node in graph.graph.nodes:
        node.meta = {}  # what was recorded belongs to another mode
    mode = FakeTensorMode(shape_env=ShapeEnv())
    try:
        with torch.no_grad(), tracing(TracingContext(mode)):
            compiled = compile_graph(graph, [mode.from_tensor(leaf, static_shapes=True) for leaf in leaves], options)
    except InvalidCxxCompiler as error:
        raise UsageError(NEEDED) from error

    def run(*leaves: Tensor) -> Any:
        with torch.no_grad():
            return compiled(*leaves)

    return run


def traced(function: Callable[..., Any], *arguments: Any) -> fx.GraphModule:
    """Return a function of trees of tensors as a graph of operators for the compiler, simplified.

    - Products with zeros become zeros: forward derivatives give constants a derivative of zeros, and multiply by it.
    - Equal results are computed once: an inner gradient is computed on the way forward, and again with its own
      derivative. At most :data:`KEPT` bytes are kept for that.
    - Unused results are removed.
    """
    # Distinct tensors: the same tensor as two arguments would be traced as one input.
    own = tree_map(lambda leaf: leaf.clone(), arguments)
    return _simplified(make_fx(func.functionalize(function))(*own), {aten.alias})


def replayed(function: Callable[..., Any], *arguments: Any) -> fx.GraphModule:
    """Return the same as :func:`traced` as a graph that is run as it is, operator by operator.

    There a convolution is a product (:mod:`rbml.operators.convolution`), by custom functions with their own
    derivatives. ``functionalize`` refuses those, so that they are recorded first; then no in-place operator is left
    either. Recorded with real tensors: on fake ones the zero tangents of forward derivatives are refused.
    """
    own = tree_map(lambda leaf: leaf.clone(), arguments)
    graph = make_fx(function)(*own)
    if _writes(graph.graph):
        graph = make_fx(func.functionalize(graph))(*own)
    return _simplified(graph, {aten.alias, aten.detach})


def _simplified(graph: fx.GraphModule, same: set[Any]) -> fx.GraphModule:
    """Simplify a graph; operators in ``same`` return their input."""
    _own_memory(graph.graph)
    _leave_out_zeros(graph.graph)
    _compute_once(graph.graph, same)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _writes(graph: fx.Graph) -> bool:
    """Return whether an operator writes into one of its inputs."""
    return any(
        isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable for node in graph.nodes
    )


def _own_memory(graph: fx.Graph) -> None:
    """Make tensors contiguous before they are written into.

    The compiler writes into a copy with the same expanded strides as the original, so that rows of several tasks share
    memory and are summed (PyTorch 2.13, CPU): a silently wrong result. Zero tangents have no memory at all, and writing
    into them crashes Python.
    """
    for node in list(graph.nodes):
        if _operator(node) is aten._efficientzerotensor:
            node.target = aten.zeros.default
        if _operator(node) in _WRITES and _operator(node.args[0]) is aten.expand:
            with graph.inserting_before(node):
                own = graph.call_function(
                    aten.clone.default, (node.args[0],), {"memory_format": torch.contiguous_format}
                )
            own.meta = node.args[0].meta
            node.replace_input_with(node.args[0], own)


def _operator(node: fx.Node) -> Any:
    """Return what a node calls, without the overload, or ``None``."""
    return node.target.overloadpacket if isinstance(node.target, torch._ops.OpOverload) else None


def _leave_out_zeros(graph: fx.Graph) -> None:
    """Replace products with zeros by zeros."""
    zero: set[Any] = set()
    for node in list(graph.nodes):
        operator = _operator(node)
        if operator in _ZEROS or (operator in _MOVES | _COPIES and node.args[0] in zero):
            zero.add(node)
        product = operator in _PRODUCTS or (operator is aten.convolution and node.args[2] is None)
        if product and zero & {node.args[0], node.args[1]}:
            like: Tensor = node.meta["val"]
            with graph.inserting_before(node):
                nothing = graph.call_function(
                    aten.zeros.default, (list(like.shape),), {"dtype": like.dtype, "device": like.device}
                )
            nothing.meta = node.meta
            node.replace_all_uses_with(nothing)
            graph.erase_node(node)
            zero.add(nothing)


def _compute_once(graph: fx.Graph, same: set[Any]) -> None:
    """Let equal operators on equal inputs share one result, and leave out those that return their input."""
    if _writes(graph):
        return  # with in-place operators the same call may give another result later
    kept = 0
    seen: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if _operator(node) in same:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
            continue
        first = seen.setdefault(_meaning(node), node)
        size = 0 if _operator(node) in _MOVES else _size(node)
        if first is not node and kept + size <= KEPT:
            kept += size
            node.replace_all_uses_with(first)
            graph.erase_node(node)


def _meaning(node: fx.Node) -> Any:
    """Return a value that is equal for two nodes if their results are the same."""
    draws = _operator(node) is not None and torch.Tag.nondeterministic_seeded in node.target.tags  # type: ignore[union-attr]
    if node.op == "get_attr":
        return node.target
    if _operator(node) is None or draws:
        return node
    leaves, shape = tree_flatten((node.args, node.kwargs))
    return node.target, str(shape), tuple((type(leaf), leaf) for leaf in leaves)


def _size(node: fx.Node) -> int:
    """Return the size of a result in bytes."""
    return sum(
        math.prod(leaf.shape) * leaf.element_size()
        for leaf in tree_leaves(node.meta.get("val"))
        if isinstance(leaf, Tensor)
    )
