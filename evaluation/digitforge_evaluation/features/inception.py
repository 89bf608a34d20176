"""The Inception network of the FID paper: the original frozen graph, which published FIDs use.

Heusel et al., *GANs trained by a two time-scale update rule converge to a local Nash equilibrium*, NeurIPS 2017, use
the 2 048 values of its layer ``pool_3``. Images of 0 … 255 enter after the JPEG decoder, and the graph resizes them to
299×299. The graph is from Google, December 2015, and is not part of digitforge. ``make verify-fid`` compares features
and distances with torch-fidelity.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from digitforge_client.common.archives import gunzip
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_evaluation.features.extract import About, Measured
from digitforge_training.data.download import fetch
from digitforge_training.data.mnist import cache_dir

NAME: Final = "inception-2015-12-05"
GRAPH: Final = "classify_image_graph_def.pb"
ARCHIVE: Final = f"{NAME}.tgz"
#: SHA-256 of the unpacked graph.
SHA256: Final = "009d6814d1bc560d4e7b236e170e9b2d5ca6f4b57bd8037f6db05776204415c6"
#: Environment variable that replaces `MIRRORS`: URLs of folders with the archive, separated by spaces.
MIRRORS_VARIABLE: Final = "DIGITFORGE_INCEPTION_MIRRORS"
MIRRORS: Final = (
    "http://download.tensorflow.org/models/image/imagenet/",
    "https://storage.googleapis.com/download.tensorflow.org/models/image/imagenet/",
)
#: Bytes that the archive may have after decompression. The published one has 96 MB.
LARGEST_ARCHIVE: Final = 2**28
REMEDY: Final = f"give the file {GRAPH} or {ARCHIVE} with --features inception:FILE"

#: Tensor of the images, after the JPEG decoder.
INPUT: Final = "ExpandDims:0"
#: Tensor of the features.
OUTPUT: Final = "pool_3:0"
FEATURES: Final = 2048
BATCH: Final = 50

CAUTION: Final = (
    "unverified: nobody has compared it with another implementation yet (`make verify-fid`); the network was trained "
    "on photographs"
)


class Inception:
    """The Inception network: 2 048 features for an image of any size, gray or color."""

    name = NAME
    caution = CAUTION
    class_names: tuple[str, ...] = ()
    about = About(
        made="2048 features of the Inception network of the FID paper, which was trained on photographs of 1000 sorts "
        "of objects.",
        sees="Differences in texture, shape and color, as they matter for photographs.",
        misses="Small differences between drawings, digits or icons: it has never seen such images.",
    )

    def __init__(self, path: Path | None = None, *, sha256: str = SHA256) -> None:
        """Load the graph.

        Args:
            path: the graph, or the archive that contains it. None: use the cached archive, and download it first if
                needed.
            sha256: expected SHA-256 of the graph, in hexadecimal.

        Raises:
            DataError: the graph cannot be read or downloaded, or is a different graph.
        """
        import tensorflow as tf

        where = path or _downloaded(sha256)
        content = read_graph(where)
        if (found := hashlib.sha256(content).hexdigest()) != sha256:
            raise DataError(
                f"{where}: not the network of the FID paper: the SHA-256 of the graph is {found}, expected {sha256}; "
                f"use {ARCHIVE} from {MIRRORS[0]}"
            )
        definition = tf.compat.v1.GraphDef.FromString(content)
        # A session, because the old graph has operations that a tf.function refuses.
        with tf.Graph().as_default() as graph:
            # Any number of images; the original input takes one.
            self._images = tf.compat.v1.placeholder(tf.float32, (None, None, None, 3))
            try:
                (self._output,) = tf.graph_util.import_graph_def(
                    definition, input_map={INPUT: self._images}, return_elements=[OUTPUT]
                )
            except ValueError as error:
                raise DataError(
                    f"{where}: cannot find the tensors {INPUT} and {OUTPUT} in the graph ({error}); {REMEDY}"
                ) from error
        self._session = tf.compat.v1.Session(graph=graph)

    def measure(self, images: npt.NDArray[np.uint8]) -> Measured:
        """Compute features of (n, H, W, 1 or 3) uint8 images, 0 … 255, without probabilities.

        Raises:
            InvalidInputError: the images have a wrong shape or dtype.
        """
        if images.ndim != 4 or images.shape[3] not in (1, 3) or images.dtype != np.uint8:
            raise InvalidInputError(
                f"images have dtype {images.dtype} and shape {images.shape}; {self.name} takes uint8 (n, H, W, 1) or "
                "(n, H, W, 3)"
            )
        features = np.empty((len(images), FEATURES), np.float32)
        for at in range(0, len(images), BATCH):
            part = np.repeat(images[at : at + BATCH], 3 // images.shape[3], axis=3).astype(np.float32)
            pooled: Any = self._session.run(self._output, {self._images: part})
            features[at : at + BATCH] = pooled.reshape(len(part), FEATURES)
        return Measured(features=features, probabilities=None)


def read_graph(path: Path) -> bytes:
    """Read the graph from *path*, which is the graph itself or the archive.

    Raises:
        DataError: the file cannot be read, or is an archive without the graph.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; {REMEDY}") from error
    return _unpack(content, str(path)) if content[:2] == b"\x1f\x8b" else content  # the first bytes of a gzip file


def _unpack(content: bytes, where: str) -> bytes:
    try:
        unpacked = gunzip(content, LARGEST_ARCHIVE)
        if len(unpacked) > LARGEST_ARCHIVE:
            raise DataError(f"the archive has more than {LARGEST_ARCHIVE} bytes after decompression")
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as archive:
            member = archive.getmember(GRAPH)
            # A sparse file may have any size.
            if member.isreg() and not member.issparse():
                return archive.extractfile(member).read()  # type: ignore[union-attr]
    except (DataError, tarfile.TarError, KeyError, OSError, EOFError) as error:
        raise DataError(f"{where}: not an archive with {GRAPH} ({error}); {REMEDY}") from error
    raise DataError(f"{where}: {GRAPH} is not a file in this archive; {REMEDY}")


def _downloaded(sha256: str) -> Path:
    folder = cache_dir() / "inception"
    if not (folder / ARCHIVE).exists() and (folder / GRAPH).exists():  # a user put it there
        return folder / GRAPH
    mirrors = os.environ.get(MIRRORS_VARIABLE, "").split() or MIRRORS
    fetch({ARCHIVE: sha256}, folder, mirrors=mirrors, unpack=_unpack, remedy=REMEDY)
    return folder / ARCHIVE
