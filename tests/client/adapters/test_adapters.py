"""Adapters deliver complete epochs of fresh digits in the form that each library expects."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from digitforge_client import DigitClient, InvalidInputError, ServerUnavailableError
from digitforge_client.adapters.mixing import MixedBatches
from digitforge_client.testing import FakeTransport


@pytest.fixture
def client() -> DigitClient:
    return DigitClient(transports=[FakeTransport()])


REAL = DigitClient(transports=[FakeTransport(generator_id="0" * 16)]).sample(50, seed=1)  # digits of another generator
X, Y = REAL.images, REAL.labels


def rows(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_an_epoch_has_every_real_image_once_and_fresh_digits(client: DigitClient) -> None:
    batches = MixedBatches(client, X, Y, batch_size=20, synthetic=0.5, seed=3)
    assert (batches.real_per_batch, batches.synthetic_per_batch, len(batches)) == (10, 10, 5)
    synthetic: list[set[bytes]] = []
    for epoch in range(3):
        assert batches.epoch == epoch
        parts = list(batches)
        assert [len(labels) for _, labels in parts] == [20] * 5
        images = np.concatenate([images for images, _ in parts])
        labels = np.concatenate([labels for _, labels in parts])
        assert rows(X) <= rows(images)
        synthetic.append(rows(images) - rows(X))
        assert len(synthetic[-1]) == 50
        for image, label in zip(images, labels, strict=True):  # each image has kept its label
            real = np.flatnonzero((image == X).all(axis=(1, 2)))
            assert not len(real) or Y[real[0]] == label
    assert len(set.union(*synthetic)) == 150
    again = np.concatenate([images for images, _ in MixedBatches(client, X, Y, batch_size=20, synthetic=0.5, seed=3)])
    assert rows(again) == rows(X) | synthetic[0]


def test_synthetic_digits_have_the_label_and_the_form_of_the_real_ones() -> None:
    names = ("cat", "dog", "owl")
    client = DigitClient(transports=[FakeTransport(class_names=names, image_shape=(4, 3, 1))])
    real = np.full((6, 12), -1.0, dtype=np.float32)
    batches = MixedBatches(client, real, ["cat"] * 6, batch_size=9, synthetic=2 / 3, pixel_range=(-1, 1), seed=2)
    images, labels = batches.batch(0, 0)
    assert images.shape == (9, 12)
    assert images.dtype == np.float32
    assert labels.tolist().count("cat") == 3 + 2
    assert labels.tolist().count("owl") == 2
    expected = client.sample(6, seed=2).images.reshape(6, 12) / 255 * 2 - 1
    fresh = images[(images != -1).any(axis=1)]
    assert np.abs(np.sort(fresh, axis=0) - np.sort(expected, axis=0)).max() < 1e-6


def test_a_share_of_0_or_1_is_possible_and_one_image_stays_real(client: DigitClient) -> None:
    only_real = MixedBatches(client, X, Y, batch_size=25, synthetic=0)
    assert rows(np.concatenate([images for images, _ in only_real])) == rows(X)
    assert MixedBatches(client, X, Y, batch_size=25, synthetic=1).real_per_batch == 1


def test_mixed_digits_can_be_expanded(client: DigitClient) -> None:
    batches = list(MixedBatches(client, X, Y, batch_size=25, synthetic=0.5, expansion=1.3))
    digits = client.sample(12, seed=0, expansion=1.3).images
    assert rows(digits) <= rows(batches[0][0])
    assert not rows(digits) <= rows(next(iter(MixedBatches(client, X, Y, batch_size=25, synthetic=0.5)))[0])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 0, "synthetic": 0.5}, "batch_size"),
        ({"batch_size": 8, "synthetic": 1.5}, "synthetic"),
        ({"batch_size": 8, "synthetic": 0.5, "seed": -1}, "seed"),
        ({"batch_size": 8, "synthetic": 0.5, "expansion": 0}, "expansion"),
        ({"batch_size": 8, "synthetic": 0.5, "pixel_range": (0, 1)}, "pixel_range"),
    ],
)
def test_invalid_options_are_rejected(client: DigitClient, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        MixedBatches(client, X, Y, **options)
    with pytest.raises(InvalidInputError, match="labels"):
        MixedBatches(client, X, Y[1:], batch_size=8, synthetic=0.5)
    late = MixedBatches(client, X, Y, batch_size=8, synthetic=0.5, epoch=2**31)
    with pytest.raises(InvalidInputError, match="another seed"):
        next(iter(late))


@pytest.mark.parametrize(
    ("real", "synthetic", "ranks"), [(48, 0.5, 2), (50, 0.5, 4), (50, 0, 3), (1, 0.5, 3), (9, 0, 8)]
)
def test_ranks_share_the_real_images_and_get_their_own_digits(
    client: DigitClient, real: int, synthetic: float, ranks: int
) -> None:
    def mixed(rank: int, world_size: int) -> MixedBatches:
        how: dict[str, Any] = {"batch_size": 4, "synthetic": synthetic, "seed": 3}
        return MixedBatches(client, X[:real], Y[:real], **how, rank=rank, world_size=world_size)

    seen = set[bytes]()
    for epoch in range(2):
        shares = [[mixed(rank, ranks).batch(number, epoch) for number in range(len(mixed(rank, ranks)))]
                  for rank in range(ranks)]  # fmt: skip
        assert len({tuple(len(labels) for _, labels in share) for share in shares}) == 1  # the ranks stay in step
        images = [np.concatenate([images for images, _ in share]) for share in shares]
        times = Counter(image.tobytes() for share in images for image in share)
        counts = [times[image.tobytes()] for image in X[:real]]
        assert sum(counts) == -(-real // ranks) * ranks
        assert max(counts) - min(counts) <= 1
        fresh = [rows(share) - rows(X[:real]) for share in images]
        everything = {image for share in fresh for image in share}
        assert sum(map(len, fresh)) == len(everything) == sum(times.values()) - sum(counts)
        assert not seen & everything
        seen |= everything


@pytest.mark.parametrize(
    ("rank", "world_size"), [(0, None), (None, 2), (2, 2), (-1, 2), (0, 0), (0.0, 2), (True, 2), ("0", 2)]
)
def test_an_invalid_rank_is_rejected(client: DigitClient, rank: Any, world_size: Any) -> None:
    with pytest.raises(InvalidInputError, match="world_size"):
        MixedBatches(client, X, Y, batch_size=8, synthetic=0.5, rank=rank, world_size=world_size)


def test_keras_trains_on_mixed_batches(client: DigitClient) -> None:
    keras = pytest.importorskip("keras")
    from digitforge_client.adapters.keras import MixedDataset

    batches = MixedBatches(client, X / 255.0, Y, batch_size=20, synthetic=0.5, pixel_range=(0, 1))
    model = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=loss)
    losses = model.fit(MixedDataset(batches), epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(("workers", "strategy"), [(1, False), (2, False), (1, True)])
def test_keras_trains_on_every_epoch_and_evaluation_changes_nothing(
    client: DigitClient, workers: int, strategy: bool
) -> None:
    tensorflow = pytest.importorskip("tensorflow")
    import keras

    from digitforge_client.adapters.keras import MixedDataset

    batches = MixedBatches(client, X / 255.0, Y, batch_size=20, synthetic=0.5, pixel_range=(0, 1), epoch=4)
    with tensorflow.distribute.MirroredStrategy(["CPU:0"]).scope() if strategy else contextlib.nullcontext():
        model = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(10)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    handed_out: list[tuple[int, int]] = []

    class Recording(MixedDataset):
        def __getitem__(self, number: int) -> Any:
            handed_out.append((batches.epoch, number))
            return super().__getitem__(number)

    def handed_out_by(run: Any) -> list[int]:
        """The epochs that were handed out completely. Keras also reads a batch or two to learn their form."""
        handed_out.clear()
        run()
        assert {epoch for epoch, _ in handed_out} <= set(range(batches.epoch + 1))
        return [epoch for epoch in range(10) if {(epoch, number) for number in range(5)} <= set(handed_out)]

    dataset = Recording(batches, workers=workers)
    assert handed_out_by(lambda: model.evaluate(dataset, verbose=0)) == [4]
    assert handed_out_by(lambda: model.fit(dataset, epochs=2, verbose=0)) == [4, 5]
    assert handed_out_by(lambda: model.evaluate(dataset, verbose=0)) == [6]
    assert handed_out_by(lambda: model.predict(dataset, verbose=0)) == [6]
    assert handed_out_by(lambda: model.fit(dataset, epochs=2, verbose=0, validation_data=dataset)) == [6, 7, 8]
    assert batches.epoch == 8

    class StopEarly(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = True

    model.fit(dataset, verbose=0, callbacks=[StopEarly()])
    assert handed_out_by(lambda: model.fit(dataset, verbose=0)) == [9]


def test_each_pass_of_a_tensorflow_dataset_is_the_stream(client: DigitClient) -> None:
    pytest.importorskip("tensorflow")
    from digitforge_client.adapters.tensorflow import dataset

    whole = client.sample(250, seed=5)
    digits = dataset(client, 250, batch_size=100, seed=5)
    for _ in range(2):
        parts = list(digits.as_numpy_iterator())
        assert [images.shape for images, _ in parts] == [(100, 28, 28, 1), (100, 28, 28, 1), (50, 28, 28, 1)]
        np.testing.assert_array_equal(np.concatenate([images for images, _ in parts])[..., 0], whole.images)
        np.testing.assert_array_equal(np.concatenate([labels for _, labels in parts]), whole.labels)
    drawn = dataset(client, 10, batch_size=10)
    one, other = (next(drawn.as_numpy_iterator())[0] for _ in range(2))
    np.testing.assert_array_equal(one, other)
    wider = next(dataset(client, 10, batch_size=10, seed=5, expansion=1.3).as_numpy_iterator())[0]
    np.testing.assert_array_equal(wider[..., 0], client.sample(10, seed=5, expansion=1.3).images)
    sevens = dataset(client, 10, batch_size=10, labels=7)
    assert next(sevens.as_numpy_iterator())[1].tolist() == [7] * 10


def test_ranks_share_a_tensorflow_dataset(client: DigitClient) -> None:
    tensorflow = pytest.importorskip("tensorflow")
    from digitforge_client.adapters.tensorflow import dataset

    whole = client.sample(90, seed=5)
    shares = [dataset(client, 90, batch_size=20, seed=5, rank=rank, world_size=3) for rank in range(3)]
    parts = [part for share in shares for part in share.as_numpy_iterator()]
    assert [len(labels) for _, labels in parts] == [20, 10] * 3
    np.testing.assert_array_equal(np.concatenate([images for images, _ in parts])[..., 0], whole.images)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in parts]), whole.labels)
    off = tensorflow.data.experimental.AutoShardPolicy.OFF  # a strategy does not take a shard of a shard
    assert [share.options().experimental_distribute.auto_shard_policy for share in shares] == [off] * 3
    with pytest.raises(InvalidInputError, match="expected a multiple of 4, such as 88"):
        dataset(client, 90, batch_size=20, rank=0, world_size=4)


def test_the_error_of_a_tensorflow_dataset_gives_the_reason() -> None:
    tensorflow = pytest.importorskip("tensorflow")
    from digitforge_client.adapters.tensorflow import dataset

    fake = FakeTransport()
    digits = dataset(DigitClient(transports=[fake]), 10, batch_size=10)
    from digitforge_client import RequestRejectedError

    fake.failures.append(RequestRejectedError("the reason"))
    with pytest.raises(tensorflow.errors.OpError, match="the reason"):
        list(digits)
    with pytest.raises(ServerUnavailableError):
        dataset(DigitClient("127.0.0.1:1"), 10, batch_size=10)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_pytorch_workers_share_an_epoch(server: Any, formula: Any, workers: int) -> None:
    pytest.importorskip("torch")
    from torch.utils.data import DataLoader

    from digitforge_client.adapters.torch import SyntheticDigits

    with DigitClient(server.target) as client:
        client.card()  # the parent connects before the workers are forked
        digits = SyntheticDigits(client, 500, batch_size=64, seed=2)
        loader = DataLoader(digits, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
        for epoch in range(2):
            digits.set_epoch(epoch)
            batches = list(loader)
            assert all(images.shape[1:] == (1, 28, 28) for images, _ in batches)
            seen = np.concatenate([images.numpy()[:, 0] for images, _ in batches])
            labels = np.concatenate([labels.numpy() for _, labels in batches])
            expected = client.sample(500, seed=2, start=500 * epoch)
            assert len(seen) == 500
            assert rows(seen) == rows(expected.images)
            assert np.bincount(labels).tolist() == [50] * 10


@pytest.mark.parametrize("workers", [0, 3])
def test_pytorch_ranks_share_an_epoch_with_workers_inside(server: Any, workers: int) -> None:
    pytest.importorskip("torch")
    from torch.utils.data import DataLoader

    from digitforge_client.adapters.torch import SyntheticDigits

    with DigitClient(server.target) as client:
        expected = client.sample(120, seed=2, start=120)
        batches = []
        for rank in range(4):
            digits = SyntheticDigits(client, 120, batch_size=8, seed=2, rank=rank, world_size=4)
            digits.set_epoch(1)
            batches.append(list(DataLoader(digits, batch_size=None, num_workers=workers)))
        assert {len(share) for share in batches} == {len(batches[0])}  # the ranks stay in step
        images = [image.numpy()[0].tobytes() for share in batches for images, _ in share for image in images]
        assert sorted(images) == sorted(image.tobytes() for image in expected.images)
        with pytest.raises(InvalidInputError, match="expected a multiple of 7, such as 119"):
            SyntheticDigits(client, 120, rank=0, world_size=7)


DISTRIBUTED = """
import sys

import numpy as np
import torch.distributed
from torch.utils.data import DataLoader

from digitforge_client import DigitClient
from digitforge_client.adapters.mixing import MixedBatches
from digitforge_client.adapters.torch import SyntheticDigits

if __name__ == "__main__":
    target, folder, rank, start_method = *sys.argv[1:3], int(sys.argv[3]), sys.argv[4] or None
    client = DigitClient(target)
    digits = SyntheticDigits(client, 64, batch_size=8, seed=0)  # before the process group exists
    mixed = MixedBatches(client, np.zeros((30, 28, 28), np.uint8), [0] * 30, batch_size=8, synthetic=0.5)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    loader = DataLoader(
        digits, batch_size=None, num_workers=2 if start_method else 0, multiprocessing_context=start_method
    )
    images = [image.numpy()[0] for images, _ in loader for image in images]
    synthetic = [image for images, _ in mixed for image in images if image.any()]
    np.savez(f"{folder}/{rank}.npz", images=images, synthetic=synthetic)
    torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize("start_method", ["", "fork", "spawn"])
def test_pytorch_ranks_of_a_process_group_get_different_digits(server: Any, tmp_path: Path, start_method: str) -> None:
    pytest.importorskip("torch")
    script = tmp_path / "train.py"
    script.write_text(DISTRIBUTED, "utf-8")
    ranks = [
        subprocess.Popen([sys.executable, str(script), server.target, str(tmp_path), str(rank), start_method])
        for rank in range(2)
    ]
    assert [rank.wait(timeout=240) for rank in ranks] == [0, 0]
    saved = [np.load(tmp_path / f"{rank}.npz") for rank in range(2)]
    with DigitClient(server.target) as client:
        images = np.concatenate([archive["images"] for archive in saved])
        assert [len(archive["images"]) for archive in saved] == [32, 32]
        assert rows(images) == rows(client.sample(64, seed=0).images)
        synthetic = np.concatenate([archive["synthetic"] for archive in saved])
        assert rows(synthetic) == rows(client.sample(32, seed=0).images)
        assert len(synthetic) == 32


def test_pytorch_gets_the_requested_labels(client: DigitClient) -> None:
    torch = pytest.importorskip("torch")
    from digitforge_client.adapters.torch import SyntheticDigits

    wanted = [3, 1, 4, 1, 5, 9]
    (images, labels), *_ = SyntheticDigits(client, 6, labels=wanted, seed=0)
    assert (images.dtype, labels.tolist()) == (torch.uint8, wanted)
    assert [label for _, labels in SyntheticDigits(client, 4, labels="7", batch_size=3) for label in labels] == [7] * 4
    ((images, _),) = SyntheticDigits(client, 5, seed=0, expansion=1.3)
    np.testing.assert_array_equal(images[:, 0], client.sample(5, seed=0, expansion=1.3).images)
    colors = DigitClient(transports=[FakeTransport(image_shape=(6, 5, 3))])
    assert next(iter(SyntheticDigits(colors, 2)))[0].shape == (2, 3, 6, 5)
    for wrong in ({"n": -1}, {"n": 3, "batch_size": 0}, {"n": 3, "labels": [1]}):
        with pytest.raises(InvalidInputError):
            SyntheticDigits(client, **wrong)
