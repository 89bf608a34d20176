"""The Inception network, tested on a small graph with the same tensor names and the same old operations."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from digitforge_client.errors import DataError, InvalidInputError
from digitforge_evaluation.features import inception
from digitforge_evaluation.features.choice import features_called
from digitforge_evaluation.features.inception import ARCHIVE, FEATURES, GRAPH, MIRRORS_VARIABLE, Inception, _downloaded

WEIGHTS = np.random.default_rng(0).normal(size=(13, 13, 3, FEATURES)).astype(np.float32)
MEAN, VARIANCE, OFFSET = 0.1, 1.5, 0.2


def small_graph() -> bytes:
    """A graph that resizes and scales as the network does, averages blocks of 23×23 pixels, and multiplies by weights.

    It has the batch normalization of 2015, which newer graphs refuse.
    """
    graph = tf.compat.v1.GraphDef()
    graph.versions.producer = 8

    def constant(name: str, value: Any) -> None:
        node = graph.node.add(name=name, op="Const")
        node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))

    def operation(name: str, op: str, *inputs: str, **types: tf.DType) -> Any:
        node = graph.node.add(name=name, op=op, input=inputs)
        for key, kind in types.items():
            node.attr[key].type = kind.as_datatype_enum
        return node.attr

    operation("DecodeJpeg/contents", "Placeholder", dtype=tf.string)
    operation("DecodeJpeg", "DecodeJpeg", "DecodeJpeg/contents")
    operation("Cast", "Cast", "DecodeJpeg", SrcT=tf.uint8, DstT=tf.float32)
    constant("ExpandDims/dim", np.int32(0))
    operation("ExpandDims", "ExpandDims", "Cast", "ExpandDims/dim", T=tf.float32)
    constant("ResizeBilinear/size", np.array([299, 299], np.int32))
    operation("ResizeBilinear", "ResizeBilinear", "ExpandDims", "ResizeBilinear/size", T=tf.float32)
    constant("Sub/y", np.float32(128))
    operation("Sub", "Sub", "ResizeBilinear", "Sub/y", T=tf.float32)
    constant("Mul/y", np.float32(1 / 128))
    operation("Mul", "Mul", "Sub", "Mul/y", T=tf.float32)
    pool = operation("blocks", "AvgPool", "Mul", T=tf.float32)
    pool["ksize"].list.i.extend([1, 23, 23, 1])
    pool["strides"].list.i.extend([1, 23, 23, 1])
    pool["padding"].s = b"VALID"
    constant("weights", WEIGHTS)
    convolution = operation("conv", "Conv2D", "blocks", "weights", T=tf.float32)
    convolution["strides"].list.i.extend([1, 1, 1, 1])
    convolution["padding"].s = b"VALID"
    for name, value in (("mean", MEAN), ("variance", VARIANCE), ("offset", OFFSET), ("scale", 1.0)):
        constant(name, np.full(FEATURES, value, np.float32))
    old = operation(
        "norm", "BatchNormWithGlobalNormalization", "conv", "mean", "variance", "offset", "scale", T=tf.float32
    )
    old["variance_epsilon"].f = 0.0
    old["scale_after_normalization"].b = True
    operation("pool_3", "Identity", "norm", T=tf.float32)
    return graph.SerializeToString()


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The file of the small graph, and its SHA-256."""
    path = tmp_path_factory.mktemp("graph") / GRAPH
    path.write_bytes(small_graph())
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def archive_of(path: Path, to: Path) -> Path:
    with tarfile.open(to, "w:gz") as archive:
        archive.add(path, GRAPH)
    return to


def resized(images: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
    """Bilinear resizing as in TensorFlow 1: pixel i of the result lies at i · (old side) / side, with no half pixel."""
    for axis in (1, 2):
        at = np.arange(side) * (images.shape[axis] / side)
        low = at.astype(int)
        high = np.minimum(low + 1, images.shape[axis] - 1)
        share = (at - low).reshape([-1 if each == axis else 1 for each in range(4)])
        images = images.take(low, axis) * (1 - share) + images.take(high, axis) * share
    return images


def expected_features(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """What the small graph computes from gray or color images, in NumPy."""
    color = np.repeat(images, 3 // images.shape[3], axis=3).astype(np.float64)
    scaled = (resized(color, 299) - 128) / 128
    blocks = scaled.reshape(len(images), 13, 23, 13, 23, 3).mean(axis=(2, 4))
    return (np.tensordot(blocks, WEIGHTS, 3) - MEAN) / np.sqrt(VARIANCE) + OFFSET


def test_resizing_as_in_tensorflow_1_by_hand() -> None:
    row = np.array([0.0, 4.0]).reshape(1, 1, 2, 1)
    assert resized(row, 4)[0, 0, :, 0].tolist() == [0, 2, 4, 4]  # with half pixels it would be 0, 1, 3, 4


@pytest.mark.parametrize("channels", [1, 3])
def test_images_enter_the_graph_after_the_decoder_as_in_the_paper(graph: tuple[Path, str], channels: int) -> None:
    path, sha256 = graph
    images = np.random.default_rng(1).integers(0, 256, (53, 28, 28, channels)).astype(np.uint8)  # two batches

    measured = Inception(path, sha256=sha256).measure(images)

    assert measured.probabilities is None
    np.testing.assert_allclose(measured.features, expected_features(images), rtol=1e-3, atol=1e-3)


def test_a_different_graph_is_refused_with_its_hash(graph: tuple[Path, str], tmp_path: Path) -> None:
    path, _ = graph
    with pytest.raises(DataError, match="not the network of the FID paper: the SHA-256 of the graph is"):
        Inception(path)
    (tmp_path / "text").write_text("no graph")
    with pytest.raises(DataError, match="not the network of the FID paper"):
        Inception(tmp_path / "text")
    with pytest.raises(DataError, match="cannot read"):
        features_called(f"inception:{tmp_path / 'missing'}")


def test_an_archive_is_unpacked_and_a_wrong_archive_is_refused(graph: tuple[Path, str], tmp_path: Path) -> None:
    path, sha256 = graph
    images = np.zeros((2, 8, 8, 3), np.uint8)

    archive = archive_of(path, tmp_path / ARCHIVE)
    assert Inception(archive, sha256=sha256).measure(images).features.shape == (2, FEATURES)

    with tarfile.open(tmp_path / "other.tgz", "w:gz") as other:
        other.addfile(tarfile.TarInfo("readme"), io.BytesIO())
    with pytest.raises(DataError, match=f"not an archive with {GRAPH}"):
        Inception(tmp_path / "other.tgz", sha256=sha256)


def test_an_archive_that_inflates_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "LARGEST_ARCHIVE", 2**20)
    with tarfile.open(tmp_path / "large.tgz", "w:gz") as archive:
        member = tarfile.TarInfo(GRAPH)
        member.size = 2**21
        archive.addfile(member, io.BytesIO(bytes(2**21)))
    with pytest.raises(DataError, match="more than 1048576 bytes after decompression"):
        Inception(tmp_path / "large.tgz")
    with tarfile.open(tmp_path / "sparse.tgz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo(GRAPH)
        member.size = 4
        member.pax_headers = {"GNU.sparse.map": "0,4", "GNU.sparse.size": str(2**50)}
        archive.addfile(member, io.BytesIO(b"data"))
    with pytest.raises(DataError, match="is not a file in this archive"):
        Inception(tmp_path / "sparse.tgz")


def test_without_a_file_the_graph_is_downloaded_once_and_verified(
    graph: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sha256 = graph
    (tmp_path / "mirror").mkdir()
    archive_of(path, tmp_path / "mirror" / ARCHIVE)
    monkeypatch.setenv("DIGITFORGE_CACHE_DIR", str(tmp_path / "cache"))
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "mirror"))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        monkeypatch.setenv(MIRRORS_VARIABLE, f"http://127.0.0.1:{server.server_port}/")
        with pytest.raises(DataError, match="expected 0000"):
            _downloaded("0" * 64)
        Inception(sha256=sha256)
    finally:
        server.shutdown()
        server.server_close()
    Inception(sha256=sha256)  # from the cache, because the server is down


def test_images_with_two_channels_are_refused(graph: tuple[Path, str]) -> None:
    path, sha256 = graph
    with pytest.raises(InvalidInputError, match="takes uint8"):
        Inception(path, sha256=sha256).measure(np.zeros((2, 8, 8, 2), np.uint8))
