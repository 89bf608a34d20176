"""Imports a user's own classifier."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

from digitforge_client.errors import InvalidInputError


def estimator_by_path(path: str) -> Callable[[int], Any]:
    """Import the estimator at *path*.

    Args:
        path: ``MODULE:NAME`` of a class or a function that makes an estimator. It is called with ``random_state`` if it
            has that parameter, and without arguments otherwise. The module may be in the current folder. An estimator
            needs ``fit(X, y)`` and ``predict(X)``: X is (n, H·W·C) float32 from 0 to 1, y is (n,) int64.

    Returns:
        A function that makes a new estimator from a random state.

    Raises:
        InvalidInputError: *path* cannot be imported or called, or the estimator has no ``fit`` or ``predict``.
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise InvalidInputError(f"the classifier {path!r} is not an import path; expected MODULE:NAME")
    folder = os.getcwd()  # noqa: PTH109 - sys.path holds text
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        make = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise InvalidInputError(
            f"cannot import the classifier {path!r}: {error}; expected MODULE:NAME of a class or function in the "
            "current folder or an installed package"
        ) from error
    takes_state = callable(make) and "random_state" in _parameters(make)

    def estimator(seed: int) -> Any:
        return make(random_state=seed) if takes_state else make()

    _check(path, make, estimator)
    return estimator


def _parameters(make: Callable[..., Any]) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(make).parameters)
    except ValueError:  # some classes written in C have no signature
        return ()


def _check(path: str, make: Any, estimator: Callable[[int], Any]) -> None:
    if not callable(make):
        raise InvalidInputError(
            f"the classifier {path!r} is {make!r}; expected a class or a function that makes an estimator"
        )
    try:
        made = estimator(0)
    except TypeError as error:
        raise InvalidInputError(
            f"cannot make the classifier {path!r} without arguments: {error}; give a function without arguments that "
            "makes it"
        ) from error
    missing = [method for method in ("fit", "predict") if not callable(getattr(made, method, None))]
    if missing:
        raise InvalidInputError(
            f"the classifier {path!r} is a {type(made).__name__} without {' and '.join(missing)}; expected an "
            "estimator with fit and predict"
        )
