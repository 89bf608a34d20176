"""Run TensorFlow Serving's own end-to-end tests against `digitforge serve`: `make verify-tfs-suite TFS=CHECKOUT`.

CHECKOUT is a clone of https://github.com/tensorflow/serving. Its tests and test data are read from there. The tests
start the program `tensorflow_model_server`. This script puts a launcher for `digitforge serve` in its place.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import socket
import sys
import tempfile
import unittest
from pathlib import Path
from types import ModuleType
from typing import Final

import tensorflow as tf
import tensorflow_serving
from absl import flags

#: Tests that cannot pass, by a part of their names, and why.
OUT_OF_SCOPE: Final = {
    "Classify": "the embedded server answers UNIMPLEMENTED",
    "Regress": "the embedded server answers UNIMPLEMENTED",
    "MultiInference": "the embedded server answers UNIMPLEMENTED",
    "TfLite": "the embedded server does not load TF Lite models",
    "profiler": "the embedded server has no profiler service",
    "tf_text": "the embedded server has no operations of TensorFlow Text",
    "sequential_keras": "it needs Keras 2; Keras 3 exports the model with another name of the input",
}
FLAGS: Final = ["--allow-reload", "--model-root=/"]


def prepare(checkout: Path, folder: Path) -> None:
    """Create the folders and modules that the tests expect from Bazel."""
    root = folder / "tf_serving" / "tensorflow_serving"
    (root / "model_servers").mkdir(parents=True)
    (root / "servables").symlink_to(checkout / "tensorflow_serving" / "servables")
    launcher = root / "model_servers" / "tensorflow_model_server"
    command = shlex.join([sys.executable, "-m", "digitforge", "serve", *FLAGS])
    launcher.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    launcher.chmod(0o755)
    os.environ["TEST_SRCDIR"] = str(folder)
    # The package of the published protocol lacks the tests.
    tensorflow_serving.__path__.append(str(checkout / "tensorflow_serving"))
    if importlib.util.find_spec("portpicker") is None:
        sys.modules["portpicker"] = picker = ModuleType("portpicker")
        picker.pick_unused_port = _unused_port  # type: ignore[attr-defined]


def _unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def main() -> int:
    """Run the tests; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="a clone of TensorFlow Serving")
    parser.add_argument("--only", default="", help="run only tests with this text in their names")
    arguments = parser.parse_args()
    if not (arguments.checkout / "tensorflow_serving" / "model_servers").is_dir():
        parser.error(f"{arguments.checkout} is not a clone of TensorFlow Serving")
    with tempfile.TemporaryDirectory() as folder:
        prepare(arguments.checkout.resolve(), Path(folder))
        from tensorflow_serving.model_servers import (
            tensorflow_model_server_test as suite,
        )

        flags.FLAGS([sys.argv[0], f"--test_tmpdir={folder}"])
        tf.compat.v1.enable_eager_execution()
        tests = unittest.TestSuite()
        for name in unittest.TestLoader().getTestCaseNames(suite.TensorflowModelServerTest):
            reason = next((reason for part, reason in OUT_OF_SCOPE.items() if part in name), None)
            if reason is not None:
                print(f"out of scope: {name}: {reason}")
            elif name != "test_session" and arguments.only in name:
                tests.addTest(suite.TensorflowModelServerTest(name))
        number = tests.countTestCases()
        try:
            result = unittest.TextTestRunner(verbosity=2, stream=sys.stdout, buffer=True).run(tests)
        finally:
            for process, *_ in suite.TensorflowModelServerTest.model_servers_dict.values():
                process.kill()
                process.wait()
    failed = len(result.failures) + len(result.errors)
    print(f"{number - failed} of {number} tests in scope passed")
    return 1 if failed or not number else 0


if __name__ == "__main__":
    sys.exit(main())
