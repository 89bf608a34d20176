"""Truncated digits, expanded digits and blends of classes: distribution, addresses, size of requests."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import numpy as np
import pytest

from digitforge_client import AsyncDigitClient, DigitClient, GeneratorChangedError, InvalidInputError, Limits
from digitforge_client.latent_space import expanded, truncated
from digitforge_client.testing import FakeTransport


@pytest.fixture
def fake() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
def client(fake: FakeTransport) -> DigitClient:
    return DigitClient(transports=[fake], limits=Limits(rows_per_request=16))


@pytest.mark.parametrize("threshold", [0.05, 0.5, 1.0, 2.0, 5.0])
def test_truncated_normal_latents_follow_the_truncated_normal_distribution(threshold: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    latents = np.random.default_rng(0).standard_normal((500, 20)).astype(np.float32)
    found = truncated(latents, threshold, distribution="normal")
    assert (found.dtype, found.shape) == (np.dtype(np.float32), latents.shape)
    assert np.abs(found).max() <= threshold
    expected = stats.truncnorm.ppf(stats.norm.cdf(latents.astype(np.float64)), -threshold, threshold)
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1.0, threshold))
    assert stats.kstest(found.ravel(), stats.truncnorm(-threshold, threshold).cdf).pvalue > 1e-3


def test_truncation_keeps_order_and_sign_and_a_large_threshold_changes_nothing() -> None:
    latents = np.linspace(-6, 6, 1001, dtype=np.float32)[None]
    found = truncated(latents, 1.5, distribution="normal")
    assert (np.diff(found) >= 0).all()
    np.testing.assert_array_equal(found, -found[:, ::-1])
    np.testing.assert_allclose(truncated(latents, 40.0, distribution="normal"), latents, atol=1e-5)
    assert np.isfinite(truncated(np.array([[-30.0, 0.0, 30.0]], np.float32), 1.0, distribution="normal")).all()
    np.testing.assert_allclose(truncated(latents / 6, 0.25, distribution="uniform"), latents / 24, rtol=1e-6)


def test_truncated_digits_are_made_from_truncated_latents(client: DigitClient) -> None:
    batch = client.sample(50, seed=3, start=7, truncation=0.5)
    plain = client.sample(50, seed=3, start=7)
    np.testing.assert_array_equal(batch.seeds, plain.seeds)
    np.testing.assert_array_equal(batch.labels, plain.labels)
    assert (batch.truncation, plain.truncation) == (0.5, None)
    assert (batch.images != plain.images).any()
    expected = client.from_latents(client.latents(batch.seeds) * 0.5, labels=batch.labels)
    np.testing.assert_array_equal(batch.images, expected)


def test_expanded_digits_are_made_from_expanded_latents(client: DigitClient) -> None:
    batch = client.sample(50, seed=3, start=7, expansion=1.25)
    assert (batch.expansion, batch.truncation) == (1.25, None)
    latents = client.latents(batch.seeds)
    np.testing.assert_array_equal(expanded(latents, 1.25), latents * np.float32(1.25))
    np.testing.assert_array_equal(batch.images, client.from_latents(latents * 1.25, labels=batch.labels))
    assert (batch.images != client.sample(50, seed=3, start=7).images).any()
    np.testing.assert_array_equal(
        client.sample(50, seed=3, expansion=1).images, client.sample(50, seed=3, truncation=1).images
    )


def test_truncation_lowers_variety_and_expansion_raises_it(client: DigitClient) -> None:
    scalings: list[dict[str, Any]] = [{"truncation": 0.1}, {"truncation": 0.4}, {}, {"expansion": 1.5}]
    deviations = [client.sample(200, labels=3, seed=0, **scaling).images.std(axis=0).mean() for scaling in scalings]
    assert deviations == sorted(set(deviations))


def test_a_stream_of_truncated_digits_equals_their_sample(client: DigitClient) -> None:
    whole = client.sample(100, seed=1, truncation=0.3)
    parts = list(client.stream(100, batch_size=33, seed=1, truncation=0.3))
    assert [len(part) for part in parts] == [33, 33, 33, 1]
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), whole.images)
    (wider,) = client.stream(100, batch_size=100, seed=1, expansion=1.3)
    np.testing.assert_array_equal(wider.images, client.sample(100, seed=1, expansion=1.3).images)
    later = client.sample(40, seed=1, start=60, truncation=0.3)
    np.testing.assert_array_equal(later.images, whole.images[60:])


def test_blends_lead_from_class_to_class_and_have_no_label(client: DigitClient) -> None:
    weights = np.zeros((3, 10))
    weights[0, 4], weights[1, [4, 9]], weights[2, 9] = 1, 0.5, 1
    batch = client.sample(class_weights=weights, seed=5)
    assert batch.labels.tolist() == [-1] * 3
    assert batch.class_weights is not None
    np.testing.assert_array_equal(batch.class_weights, weights.astype(np.float32))
    np.testing.assert_array_equal(batch.images[0], client.sample(labels=[4], seed=5).images[0])
    np.testing.assert_array_equal(batch.images[2], client.sample(labels=[9], seed=5, start=2).images[0])
    same = client.sample(70, class_weights=weights[1], seed=5, truncation=0.9)
    assert same.class_weights is not None
    assert same.class_weights.shape == (70, 10)
    parts = client.stream(class_weights=np.repeat(weights[1:2], 70, axis=0), batch_size=50, seed=5, truncation=0.9)
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), same.images)


def test_fetch_returns_the_same_scaled_digits_and_blends(client: DigitClient) -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(10), size=40)
    for batch in (
        client.sample(40, seed=5, truncation=0.6),
        client.sample(40, seed=5, expansion=1.6),
        client.sample(class_weights=weights, seed=6),
        client.sample(class_weights=weights, seed=6, truncation=0.2),
    ):
        again = client.fetch(pickle.loads(pickle.dumps(batch)))
        np.testing.assert_array_equal(again.images, batch.images)
        np.testing.assert_array_equal(again.labels, batch.labels)
        some = client.fetch(batch.addresses[[7, 3]])
        np.testing.assert_array_equal(some.images, batch.images[[7, 3]])
        np.testing.assert_array_equal(client.fetch(batch.addresses[5]).images, batch.images[5:6])


def test_an_unconditional_generator_supports_truncation_but_not_blends() -> None:
    client = DigitClient(transports=[FakeTransport(class_names=())])
    batch = client.sample(20, seed=0, truncation=0.5)
    assert set(batch.labels.tolist()) == {-1}
    np.testing.assert_array_equal(client.fetch(batch).images, batch.images)
    with pytest.raises(InvalidInputError, match="unconditional"):
        client.sample(20, seed=0, class_weights=np.full(10, 0.1))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n": 3, "truncation": 0}, "truncation is 0"),
        ({"n": 3, "truncation": float("nan")}, "truncation is nan"),
        ({"n": 3, "truncation": True}, "truncation is True"),
        ({"n": 3, "truncation": 1.5}, "expected at most 1"),
        ({"n": 3, "expansion": -1}, "expansion is -1"),
        ({"n": 3, "expansion": "wide"}, "expansion is 'wide'"),
        ({"n": 3, "expansion": 1.1, "truncation": 0.9}, "only one of them"),
        ({"n": 3, "class_weights": np.full(9, 1 / 9)}, r"expected \(10,\) or \(3, 10\)"),
        ({"n": 3, "class_weights": np.full((3, 10), 0.2)}, "sum to 1"),
        ({"n": 3, "class_weights": np.full((4, 10), 0.1)}, "leave n out"),
        ({"n": 3, "class_weights": "four"}, "array of numbers"),
        ({"n": 3, "class_weights": np.full(10, 0.1), "labels": 4}, "only one of them"),
        ({"class_weights": np.full(10, 0.1)}, "number of images is missing"),
    ],
)
def test_impossible_options_are_rejected_before_digits_are_requested(
    client: DigitClient, fake: FakeTransport, options: dict[str, Any], says: str
) -> None:
    client.generator()
    client.card()
    before = fake.requests
    with pytest.raises(InvalidInputError, match=says):
        client.sample(seed=0, **options)
    assert fake.requests <= before + 2  # metadata and card, to check the generator


def test_every_request_is_small_enough_for_retries() -> None:
    """gRPC only retries a request that fits into its buffer of 256 KiB."""
    sizes: list[int] = []

    class Watching(FakeTransport):
        def send(self, method: Any, request: Any, **options: Any) -> Any:
            sizes.append(request.ByteSize())
            return super().send(method, request, **options)

    fake = Watching(class_names=[str(number) for number in range(300)], max_rows=1024)
    client = DigitClient(transports=[fake], limits=Limits(rows_per_request=1024))
    assert len(client.sample(3000, seed=0, truncation=0.5)) == 3000
    assert 100_000 < max(sizes) < 256 * 1024


def test_a_generator_change_during_truncated_digits_is_an_error(fake: FakeTransport, client: DigitClient) -> None:
    stream = client.stream(100, batch_size=20, seed=0, truncation=0.5)
    next(stream)
    fake.card["generator_id"] = "f" * 16
    with pytest.raises(GeneratorChangedError, match="changed"):
        next(stream)
    accepting = client.stream(100, batch_size=20, seed=0, truncation=0.5, on_change="accept")
    assert next(accepting).generator_id == "f" * 16
    fake.card["generator_id"] = "e" * 16
    rest = list(accepting)
    assert [batch.generator_id for batch in rest] == ["e" * 16] * 4
    assert np.concatenate([batch.seeds for batch in rest]).tolist() == list(range(20, 100))


def test_the_asynchronous_client_does_the_same(client: DigitClient) -> None:
    async def ask() -> list[np.ndarray]:
        async with AsyncDigitClient(transports=[FakeTransport()]) as other:
            blend = await other.sample(class_weights=np.full((4, 10), 0.1), seed=2)
            again = await other.fetch(blend)
            np.testing.assert_array_equal(again.images, blend.images)
            return [batch.images async for batch in other.stream(30, seed=1, batch_size=15, truncation=0.5)]

    np.testing.assert_array_equal(np.concatenate(asyncio.run(ask())), client.sample(30, seed=1, truncation=0.5).images)
