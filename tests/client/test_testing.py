"""The fake server keeps the contract, like a real server."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from digitforge_client import (
    AsyncDigitClient,
    DigitClient,
    GeneratorChangedError,
    InvalidInputError,
    Limits,
    ModelNotFoundError,
    RequestRejectedError,
    ServerUnavailableError,
    Timeout,
)
from digitforge_client.testing import FakeTransport


def test_an_address_gives_the_same_digit_in_every_request() -> None:
    client = DigitClient(transports=[FakeTransport()])
    whole = client.sample(500, seed=3)
    split = DigitClient(transports=[FakeTransport()], limits=Limits(rows_per_request=7)).sample(500, seed=3)
    np.testing.assert_array_equal(split.images, whole.images)
    np.testing.assert_array_equal(client.fetch(whole.addresses[100:200]).images, whole.images[100:200])
    latents = client.latents(whole.seeds)
    np.testing.assert_array_equal(client.from_latents(latents, labels=whole.labels), whole.images)
    assert len(np.unique(whole.images.reshape(500, -1), axis=0)) == 500


def test_latents_follow_the_distribution_of_the_card() -> None:
    client = DigitClient(transports=[FakeTransport()])
    latents = client.latents(np.arange(20_000))
    assert client.card()["latent_law"] == "uniform"
    assert -1 <= latents.min() < -0.99
    assert 0.99 < latents.max() <= 1
    assert np.abs(latents.mean(axis=0)).max() < 0.02  # standard error 0.004
    assert np.abs(latents.var(axis=0) - 1 / 3).max() < 0.01
    assert np.abs(np.corrcoef(latents[:-1, 0], latents[1:, 0])[0, 1]) < 0.03


def test_images_of_the_same_class_are_more_alike_than_images_of_two_classes() -> None:
    batch = DigitClient(transports=[FakeTransport()]).sample(200, seed=0)
    flat = batch.images.reshape(200, -1).astype(float)
    distances = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    same = batch.labels[:, None] == batch.labels[None]
    assert distances[same].max() < distances[~same].min()


def test_another_generator_makes_other_images() -> None:
    one = DigitClient(transports=[FakeTransport()]).sample(10, seed=0)
    other = DigitClient(transports=[FakeTransport(generator_id="0" * 16)]).sample(10, seed=0)
    assert not np.array_equal(one.images, other.images)
    with pytest.raises(GeneratorChangedError):
        DigitClient(transports=[FakeTransport(generator_id="0" * 16)]).fetch(one)


def test_class_names_and_image_shape_can_be_chosen() -> None:
    fake = FakeTransport(class_names=("a", "b"), image_shape=(5, 4, 3), max_rows=8)
    batch = DigitClient(transports=[fake]).sample(20)
    assert batch.images.shape == (20, 5, 4, 3)
    assert set(batch.labels.tolist()) == {0, 1}
    unconditional = DigitClient(transports=[FakeTransport(class_names=())])
    assert unconditional.sample(3).labels.tolist() == [-1] * 3
    assert unconditional.from_latents(np.zeros((2, 8))).shape == (2, 28, 28)
    assert unconditional.interpolate((-1, 1), (-1, 2), steps=3).shape == (3, 28, 28)
    with pytest.raises(InvalidInputError, match="unconditional"):
        unconditional.interpolate((1, 1), (1, 2))
    with pytest.raises(InvalidInputError, match="unconditional"):
        unconditional.from_latents(np.zeros((2, 8)), labels=1)


def test_failures_can_be_requested() -> None:
    fake = FakeTransport()
    client = DigitClient(transports=[fake], timeout=Timeout(outage_s=5))
    client.card()
    fake.failures.append(ServerUnavailableError("it went away"))
    with pytest.raises(ServerUnavailableError, match="it went away"):
        client.sample(3)
    fake.failures.append(ServerUnavailableError("it went away"))
    assert sum(len(batch) for batch in client.stream(30, batch_size=10)) == 30  # a stream waits and continues
    fake.failures.append(RequestRejectedError("no"))
    with pytest.raises(RequestRejectedError):
        list(client.stream(30, batch_size=10))


class Dying(FakeTransport):
    """A fake that answers some requests for digits and is then unavailable forever."""

    def __init__(self, answers: int) -> None:
        super().__init__()
        self._left = answers

    def _answer(self, method, request):  # type: ignore[no-untyped-def]
        if self._left <= 0:
            raise ServerUnavailableError("gone")
        if "seeds" in getattr(request, "inputs", ()):
            self._left -= 1
        return super()._answer(method, request)


@pytest.mark.parametrize("answers", [1, 2, 3, 7])
def test_another_server_replaces_one_that_went_away_before_the_check(answers: int) -> None:
    limits = Limits(rows_per_request=10)
    whole = DigitClient(transports=[FakeTransport()]).sample(200, seed=4)
    client = DigitClient(transports=[Dying(answers), FakeTransport()], limits=limits)
    np.testing.assert_array_equal(client.sample(200, seed=4).images, whole.images)
    client = DigitClient(transports=[Dying(answers), FakeTransport()], limits=limits)
    streamed = [batch.images for batch in client.stream(200, batch_size=50, seed=4)]
    np.testing.assert_array_equal(np.concatenate(streamed), whole.images)


def test_both_clients_accept_the_fake() -> None:
    async def ask() -> np.ndarray:
        async with AsyncDigitClient(transports=[FakeTransport()]) as client:
            await client.wait_ready(1)
            assert (await client.metadata()).model == "digits"
            X, y = await client.augment(np.zeros((2, 784), np.uint8), [1, 1], strategy={2: 3}, seed=0, expansion=1.3)
            assert y == [1, 1, 2, 2, 2]
            return X

    client = DigitClient(transports=[FakeTransport()])
    client.wait_ready(1)
    assert client.metadata().signatures["serving_default"].inputs["labels"].shape == (None,)
    assert not client.seen(np.zeros((2, 28, 28), np.uint8)).any()
    expected, _ = client.augment(np.zeros((2, 784), np.uint8), [1, 1], strategy={2: 3}, seed=0, expansion=1.3)
    np.testing.assert_array_equal(asyncio.run(ask()), expected)
    with pytest.raises(ModelNotFoundError):
        DigitClient(transports=[_Without("latents")]).latents([1])


class _Without(FakeTransport):
    """A fake that lacks a signature."""

    def __init__(self, signature: str) -> None:
        super().__init__()
        self._missing = signature

    def _outputs(self, signature, inputs):  # type: ignore[no-untyped-def]
        return super()._outputs("missing" if signature == self._missing else signature, inputs)
