"""Data sets of labeled images: ``load(source, split=...)`` returns a `Dataset`.

`load` lists the supported sources. This package does not need TensorFlow.
"""

from digitforge_training.data.dataset import Dataset, DataSource
from digitforge_training.data.sources import load, load_images, load_splits

__all__ = ["DataSource", "Dataset", "load", "load_images", "load_splits"]
