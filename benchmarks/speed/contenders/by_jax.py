"""JAX by hand: ``jit`` of the gradient of the whole loop (``lax.scan`` over the steps), over tasks by ``vmap``."""
# mypy: ignore-errors

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch

from speed import jax_networks
from speed.problem import NotPossible, Problem


def make(problem: Problem, dtype: torch.dtype):
    if not problem.form:
        raise NotPossible("the network is not written in JAX")
    jax.config.update("jax_enable_x64", dtype == torch.float64)
    real = jnp.float64 if dtype == torch.float64 else jnp.float32
    network, different = getattr(jax_networks, problem.form), problem.data.x.shape[1]
    data = [jnp.asarray(leaf, real if leaf.dtype.kind == "f" else jnp.int32) for leaf in problem.data]
    m = {name: jnp.asarray(leaf.detach().numpy(), real) for name, leaf in problem.module(dtype).named_parameters()}
    m["rate"] = jnp.asarray(problem.rate, real)

    def loss(theta, x, y):
        out = network(theta, x)
        if problem.regression:
            return ((out - y) ** 2).mean()
        return -jnp.take_along_axis(jax.nn.log_softmax(out), y[:, None], 1).mean()

    def outer(m, x, y, qx, qy):
        theta0 = {name: leaf for name, leaf in m.items() if name != "rate"}

        def step(theta, batch):
            grads = jax.grad(loss)(theta, *batch)
            return jax.tree.map(lambda p, g: p - m["rate"] * g, theta, grads), None

        if different == problem.steps:
            theta, _ = jax.lax.scan(step, theta0, (x, y))
        else:
            theta, _ = jax.lax.scan(lambda theta, _: step(theta, (x[0], y[0])), theta0, None, length=problem.steps)
        return loss(theta, qx, qy)

    each = jax.vmap(jax.grad(outer), in_axes=(None, 0, 0, 0, 0))
    mean = jax.jit(lambda m, *data: jax.tree.map(lambda leaf: leaf.mean(0), each(m, *data)))
    return lambda: {name: np.asarray(leaf) for name, leaf in jax.block_until_ready(mean(m, *data)).items()}
