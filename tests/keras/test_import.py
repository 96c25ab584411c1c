"""``rbml.keras`` loads nothing until it is used, says what is missing, and leaves PyTorch as it is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import rbml.keras
from rbml.errors import UsageError


def run(code: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=kept | environment, check=True
    )
    return answer.stdout.strip()


def test_importing_it_loads_nothing() -> None:
    code = "import sys, rbml.keras; dir(rbml.keras); print(sorted({'keras', 'torch'} & set(sys.modules)))"
    assert run(code) == "[]"
    assert set(rbml.keras.__all__) == set(rbml.keras._HOME) == set(dir(rbml.keras))
    with pytest.raises(AttributeError, match=r"module 'rbml.keras' has no attribute 'from_kers'"):
        rbml.keras.from_kers  # noqa: B018


def test_without_keras_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['keras'] = None\nimport rbml.keras\n"
        "try: rbml.keras.from_keras\nexcept rbml.RbmlError as error: print(error)"
    )
    assert run(code) == "rbml.keras.from_keras needs Keras 3: pip install 'rbml[keras]'"


def test_another_backend_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    keras = pytest.importorskip("keras", reason="needs Keras: pip install 'rbml[keras]'")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UsageError, match=r"runs on jax here: set KERAS_BACKEND=torch .*use rbml.keras.MetaModel"):
        rbml.keras.from_keras  # noqa: B018
    with pytest.raises(UsageError, match=r"set KERAS_BACKEND=tensorflow .*use rbml.keras.from_keras"):
        rbml.keras.MetaModel  # noqa: B018
    assert rbml.keras.PerVariableSGD


def test_keras_changes_nothing_that_other_tests_see() -> None:
    pytest.importorskip("keras", reason="needs Keras: pip install 'rbml[keras]'")
    code = """
import torch
def seen():
    backends = torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled, torch.backends.cudnn.deterministic
    return (torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads(), torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(), torch.initial_seed(), *backends)
before = seen()
import keras
import rbml.keras
rbml.keras.from_keras
after = seen()
print([pair for pair in zip(before, after) if pair[0] != pair[1]])
"""
    assert run(code, KERAS_BACKEND="torch") == "[]"
