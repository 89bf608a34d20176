"""A user's own classifier, by its import path."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

from digitforge_client.errors import InvalidInputError


def estimator_by_path(path: str) -> Callable[[int], Any]:
    """What makes the estimator at *path*, ``MODULE:NAME``, from a random state.

    NAME is a class, or a function, that is called without arguments, or with ``random_state`` if it takes that; what
    it gives needs ``fit(X, y)`` and ``predict(X)``, with X (n, H·W·C) float32 from 0 to 1 and y (n,) int64. Modules are
    looked for in the current folder too.

    Raises:
        InvalidInputError: there is no such thing, or what it makes lacks one of the two.
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise InvalidInputError(f"the classifier {path!r} is no import path; expected MODULE:NAME")
    folder = os.getcwd()  # noqa: PTH109 - sys.path holds text
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        make = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise InvalidInputError(
            f"the classifier {path!r} cannot be imported ({error}); expected MODULE:NAME of something that can be, "
            "from this folder or what is installed"
        ) from error
    takes_state = callable(make) and "random_state" in _parameters(make)

    def estimator(seed: int) -> Any:
        return make(random_state=seed) if takes_state else make()

    _check(path, make, estimator)
    return estimator


def _parameters(make: Callable[..., Any]) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(make).parameters)
    except ValueError:  # a class written in C says nothing of its arguments
        return ()


def _check(path: str, make: Any, estimator: Callable[[int], Any]) -> None:
    if not callable(make):
        raise InvalidInputError(f"the classifier {path!r} is {make!r}; expected a class or a function that makes one")
    try:
        made = estimator(0)
    except TypeError as error:
        raise InvalidInputError(
            f"the classifier {path!r} cannot be made without arguments ({error}); write a function that makes it"
        ) from error
    missing = [method for method in ("fit", "predict") if not callable(getattr(made, method, None))]
    if missing:
        raise InvalidInputError(f"the classifier {path!r} makes {type(made).__name__}, which has no {missing[0]}")
