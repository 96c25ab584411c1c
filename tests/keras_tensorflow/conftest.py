"""These tests need Keras on TensorFlow, and one process has one backend: elsewhere only ``test_process.py`` runs."""

from __future__ import annotations

import os

ON_TENSORFLOW = os.environ.get("KERAS_BACKEND") == "tensorflow"

collect_ignore_glob = (
    ["test_process.py"] if ON_TENSORFLOW else ["test_meta_model.py", "test_derivatives.py", "cases.py"]
)

if ON_TENSORFLOW:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
