"""Keras runs on PyTorch in these tests, unless the environment names another backend."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
