"""Labeled images, wherever they come from: ``load(source, split=...)`` gives a ``Dataset``.

Imports without TensorFlow. What a source may be is written at `load`.
"""

from digitforge_training.data.dataset import Dataset
from digitforge_training.data.sources import load, load_splits

__all__ = ["Dataset", "load", "load_splits"]
