"""The same networks by hand in JAX: functions of the parameters, under PyTorch's names, and one batch of inputs.

Convolutions are patches times weights: under ``vmap`` JAX's own convolution with one set of weights per task takes many
times as long on a CPU.
"""
# mypy: ignore-errors

from __future__ import annotations

import jax
import jax.numpy as jnp


def mlp(p, x):
    layers = sorted({int(name.split(".")[0]) for name in p})
    for layer in layers:
        x = x @ p[f"{layer}.weight"].T + p[f"{layer}.bias"]
        x = x if layer == layers[-1] else jnp.tanh(x)
    return x


def _conv(x, weight):
    """Convolve ``(n, h, w, c)`` with ``(out, c, 3, 3)``, stride 2, padding 1."""
    rows, height, width, channels = x.shape
    tall, wide = (height + 1) // 2, (width + 1) // 2
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [x[:, i : i + 2 * tall - 1 : 2, j : j + 2 * wide - 1 : 2] for i in range(3) for j in range(3)]
    patches = jnp.stack(shifted, 3).reshape(rows * tall * wide, 9 * channels)
    return (patches @ weight.transpose(2, 3, 1, 0).reshape(9 * channels, -1)).reshape(rows, tall, wide, -1)


def conv4(p, x):
    x = x.transpose(0, 2, 3, 1)
    for i in range(4):
        x = _conv(x, p[f"convs.{i}.weight"])
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        x = (x - mean) * jax.lax.rsqrt(variance + 1e-5) * p[f"norms.{i}.weight"] + p[f"norms.{i}.bias"]
        x = jax.nn.relu(x)
    return x.mean((1, 2)) @ p["head.weight"].T + p["head.bias"]


def _norm(p, name, x):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def transformer(p, x, heads=4):
    rows, length, width = x.shape

    def linear(name, x):
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    for i in range(len({name.split(".")[1] for name in p if name.startswith("blocks.")})):
        at = f"blocks.{i}"
        parts = linear(f"{at}.qkv", _norm(p, f"{at}.before", x)).reshape(rows, length, 3, heads, width // heads)
        query, key, value = parts.transpose(2, 0, 3, 1, 4)
        weights = jax.nn.softmax(query @ key.swapaxes(-2, -1) / (width // heads) ** 0.5, -1)
        x = x + linear(f"{at}.out", (weights @ value).swapaxes(1, 2).reshape(rows, length, width))
        x = x + linear(f"{at}.down", jax.nn.gelu(linear(f"{at}.up", _norm(p, f"{at}.between", x))))
    return linear("head", x.mean(1))
