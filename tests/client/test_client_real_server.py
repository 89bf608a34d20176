"""The client with a real generator in the embedded server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from digitforge_client import (
    AsyncDigitClient,
    Batch,
    DigitClient,
    GeneratorChangedError,
    InvalidInputError,
    Limits,
    ModelNotFoundError,
)
from digitforge_client.latent_space import truncated

pytest.importorskip("tensorflow_serving.apis")


@pytest.fixture(scope="module")
def target(exported_model: Path) -> Iterator[str]:
    from digitforge_serving import EmbeddedServer

    with EmbeddedServer(exported_model) as target:
        yield target


@pytest.fixture
def client(target: str) -> Iterator[DigitClient]:
    with DigitClient(target) as client:
        client.wait_ready(60)
        yield client


def assert_same_digits(one: np.ndarray, other: np.ndarray) -> None:
    """Check that images are equal within the tolerance of the contract."""
    difference = np.abs(one.astype(np.int16) - other.astype(np.int16))
    assert difference.max(initial=0) <= 1
    assert (difference == 0).mean() >= 0.999


def test_a_sample_matches_the_card(client: DigitClient) -> None:
    card, batch = client.card(), client.sample(40, seed=3)
    height, width, _ = card["image_shape"]
    assert batch.images.shape == (40, height, width)
    assert batch.generator_id == card["generator_id"]
    assert batch.labels.tolist() == [row % len(card["class_names"]) for row in range(40)]
    assert len(np.unique(batch.images.reshape(40, -1), axis=0)) == 40


def test_an_address_gives_the_same_digit_in_every_request(client: DigitClient, target: str) -> None:
    whole = client.sample(300, seed=3)
    with DigitClient(target, limits=Limits(rows_per_request=37)) as split:
        assert_same_digits(split.sample(300, seed=3).images, whole.images)
    streamed = np.concatenate([batch.images for batch in client.stream(300, seed=3, batch_size=77)])
    assert_same_digits(streamed, whole.images)
    assert_same_digits(client.sample(20, seed=3, start=250).images, whole.images[250:270])
    order = np.random.default_rng(0).permutation(300)[:50]
    fetched = client.fetch(whole.addresses[order])
    assert_same_digits(fetched.images, whole.images[order])
    np.testing.assert_array_equal(fetched.seeds, whole.seeds[order])
    assert fetched.seed is None
    pairs = zip(whole.labels[:5].tolist(), whole.seeds[:5].tolist(), strict=True)
    assert_same_digits(client.fetch(pairs).images, whole.images[:5])


def test_addresses_of_another_generator_are_rejected(client: DigitClient) -> None:
    batch = client.sample(3, seed=0)
    stranger = Batch(
        images=batch.images, labels=batch.labels, seeds=batch.seeds, generator_id="f" * 16, seed=batch.seed
    )
    with pytest.raises(GeneratorChangedError, match="belong to generator ffffffffffffffff"):
        client.fetch(stranger)
    with pytest.raises(InvalidInputError, match="no class"):
        client.fetch([(99, 0)])
    assert len(client.fetch([])) == 0


def test_latents_and_class_weights_give_the_digits_of_their_address(client: DigitClient) -> None:
    batch = client.sample(300, seed=5)
    latents = client.latents(batch.seeds)
    assert latents.shape == (300, client.card()["latent_size"])
    assert latents.dtype == np.float32
    assert_same_digits(client.from_latents(latents, labels=batch.labels), batch.images)
    classes = len(client.card()["class_names"])
    assert_same_digits(client.from_latents(latents, class_weights=np.eye(classes)[batch.labels]), batch.images)
    seven = client.from_latents(latents[:3], labels=7)
    assert_same_digits(seven, client.fetch([(7, int(seed)) for seed in batch.seeds[:3]]).images)


@pytest.mark.parametrize("wrong", ["neither", "both", "shape", "sum", "size", "nan", "labels"])
def test_latents_that_do_not_fit_are_rejected(client: DigitClient, wrong: str) -> None:
    card = client.card()
    latents, weights = np.zeros((2, card["latent_size"])), np.full((2, len(card["class_names"])), 0.1)
    cases: dict[str, tuple[Any, dict[str, Any]]] = {
        "neither": (latents, {}),
        "both": (latents, {"labels": 1, "class_weights": weights}),
        "shape": (latents, {"class_weights": weights[:1]}),
        "sum": (latents, {"class_weights": weights * 2}),
        "size": (latents[:, 1:], {"labels": 1}),
        "nan": (latents * np.nan, {"labels": 1}),
        "labels": (latents, {"labels": [1, 2, 3]}),
    }
    given, how = cases[wrong]
    with pytest.raises(InvalidInputError):
        client.from_latents(given, **how)


def test_an_interpolation_starts_and_ends_at_its_addresses(client: DigitClient) -> None:
    walk = client.interpolate((4, 11), (8, 12), steps=9)
    ends = client.fetch([(4, 11), (8, 12)]).images
    assert walk.shape == (9, *ends.shape[1:])
    assert_same_digits(walk[[0, -1]], ends)
    assert len(np.unique(walk.reshape(9, -1), axis=0)) > 2
    assert_same_digits(client.interpolate(("4", 11), ("8", 12), steps=2), ends)
    for steps in (1, 0, 2.5):
        with pytest.raises(InvalidInputError, match="steps"):
            client.interpolate((4, 11), (8, 12), steps=steps)  # type: ignore[arg-type]


def test_training_images_are_recognized(client: DigitClient) -> None:
    from digitforge_training.data import load

    real = load("digits").images[:20]
    assert client.seen(real).all()
    assert client.seen(real[..., 0]).all()
    assert not client.seen(255 - real).any()
    assert client.seen(real[:0]).shape == (0,)
    with pytest.raises(InvalidInputError, match="uint8"):
        client.seen(real.astype(np.float32))


def test_metadata_names_the_signatures_of_the_contract(client: DigitClient) -> None:
    metadata = client.metadata()
    assert {"serving_default", "png", "latents", "from_latents", "card", "seen"} <= set(metadata.signatures)
    assert metadata.signatures["serving_default"].inputs["seeds"].dtype == "int64"
    assert metadata.signatures["card"].outputs["card"].dtype == "string"


def test_unknown_models_and_versions_are_not_found(target: str) -> None:
    for wrong in ({"model": "letters"}, {"version": 77}):
        with DigitClient(target, **wrong) as client, pytest.raises(ModelNotFoundError):
            client.sample(1)


def test_both_clients_return_the_same(client: DigitClient, target: str) -> None:
    async def ask() -> tuple[Batch, list[Batch], Batch, np.ndarray]:
        async with AsyncDigitClient(target) as other:
            await other.wait_ready(60)
            assert await other.card() == client.card()
            assert await other.metadata() == client.metadata()
            sample = await other.sample(200, seed=9)
            stream = [batch async for batch in other.stream(200, seed=9, batch_size=64)]
            return sample, stream, await other.fetch(sample), await other.interpolate((1, 2), (3, 4), steps=3)

    sample, stream, fetched, walk = asyncio.run(ask())
    whole = client.sample(200, seed=9)
    assert_same_digits(sample.images, whole.images)
    assert_same_digits(fetched.images, whole.images)
    assert_same_digits(np.concatenate([batch.images for batch in stream]), whole.images)
    assert_same_digits(walk, client.interpolate((1, 2), (3, 4), steps=3))


def test_truncated_digits_are_made_from_truncated_latents(client: DigitClient) -> None:
    batch = client.sample(40, seed=3, truncation=0.7)
    latents = truncated(client.latents(batch.seeds), 0.7, distribution=client.card()["latent_law"])
    assert np.abs(latents).max() <= 0.7
    assert_same_digits(batch.images, client.from_latents(latents, labels=batch.labels))
    assert_same_digits(batch.images, client.fetch(batch).images)
    assert_same_digits(client.sample(40, seed=3, truncation=40.0).images, client.sample(40, seed=3).images)


def test_expanded_digits_are_made_from_expanded_latents(client: DigitClient) -> None:
    batch = client.sample(40, seed=3, expansion=1.3)
    latents = client.latents(batch.seeds) * np.float32(1.3)
    assert_same_digits(batch.images, client.from_latents(latents, labels=batch.labels))
    assert_same_digits(batch.images, client.fetch(batch).images)
