"""The asynchronous client: it matches `DigitClient`, and it does not block the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import threading
import time
from typing import Any

import grpc
import numpy as np
import pytest
from ports import free_port

from digitforge_client import (
    AsyncDigitClient,
    DigitClient,
    GeneratorChangedError,
    InvalidInputError,
    Limits,
    ModelNotFoundError,
    Retry,
    ServerTimeoutError,
    ServerUnavailableError,
    Timeout,
)

ONCE = Retry(attempts=1)


def public_methods(client: type) -> dict[str, inspect.Signature]:
    functions = inspect.getmembers(client, inspect.isfunction)
    return {name: inspect.signature(function) for name, function in functions if not name.startswith("_")}


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    one, other = public_methods(DigitClient), public_methods(AsyncDigitClient)
    assert set(one) == set(other)
    for name, signature in one.items():
        assert list(signature.parameters.values()) == list(other[name].parameters.values()), name


def test_a_sample_and_a_stream_have_the_digits_of_their_addresses(server: Any, formula: Any) -> None:
    async def ask() -> None:
        async with AsyncDigitClient(server.target, limits=Limits(rows_per_request=50)) as client:
            batch = await client.sample(330, seed=7)
            np.testing.assert_array_equal(batch.images, formula(batch.labels, batch.seeds)[..., 0])
            streamed = [part async for part in client.stream(330, seed=7, batch_size=77)]
            np.testing.assert_array_equal(np.concatenate([part.images for part in streamed]), batch.images)
            assert (await client.card())["generator_id"] == batch.generator_id == server.generator_id
            assert len(await client.sample(0)) == 0
            assert [part async for part in client.stream(0)] == []

    asyncio.run(ask())


def test_many_tasks_may_share_a_client(server: Any, formula: Any) -> None:
    async def ask() -> None:
        async with AsyncDigitClient(server.target) as client:
            batches = await asyncio.gather(*(client.sample(100, seed=seed) for seed in range(12)))
        for seed, batch in enumerate(batches):
            assert batch.seed == seed
            np.testing.assert_array_equal(batch.images, formula(batch.labels, batch.seeds)[..., 0])

    asyncio.run(ask())


def test_a_client_works_in_a_second_event_loop(server: Any) -> None:
    client = AsyncDigitClient(server.target)

    async def ask() -> int:
        return len(await client.sample(3))

    assert [asyncio.run(ask()) for _ in range(2)] == [3, 3]


def test_both_clients_raise_the_same_errors(server: Any) -> None:
    async def ask() -> None:
        async with AsyncDigitClient(server.target) as client:
            with pytest.raises(InvalidInputError, match="no class 10"):
                await client.sample(labels=[10])
            with pytest.raises(InvalidInputError, match="batch_size"):
                client.stream(5, batch_size=0)
        async with AsyncDigitClient(server.target, model="letters") as client:
            with pytest.raises(ModelNotFoundError) as caught:
                await client.card()
            assert isinstance(caught.value.__cause__, grpc.RpcError)
        async with AsyncDigitClient("127.0.0.1:1", retry=ONCE) as client:
            with pytest.raises(ServerUnavailableError, match="digitforge serve"):
                await client.sample(1)
            with pytest.raises(ServerTimeoutError, match="no server listens"):
                await client.wait_ready(0.4)
        async with AsyncDigitClient(server.target, timeout=Timeout(request_s=0.3)) as client:
            await client.card()
            server.delay_s = 2.0
            with pytest.raises(ServerTimeoutError, match=r"within 0.3 s"):
                await client.sample(1)
            server.delay_s = 0.0

    asyncio.run(ask())


def test_a_canceled_task_leaves_nothing(server: Any) -> None:
    async def ask() -> None:
        async with AsyncDigitClient(server.target, limits=Limits(rows_per_request=10)) as client:
            await client.card()
            server.delay_s = 0.5
            task = asyncio.create_task(client.sample(1000))
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            asked = len(server.requests)
            await asyncio.sleep(0.7)
            assert len(server.requests) == asked <= 4
            server.delay_s = 0.0
            assert len(await client.sample(3)) == 3
        await asyncio.sleep(0)
        gc.collect()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(ask())


def test_a_stream_that_is_closed_early_stops_sending_requests(server: Any) -> None:
    async def ask() -> None:
        async with AsyncDigitClient(server.target) as client:
            async with contextlib.aclosing(client.stream(1_000_000_000, batch_size=10, seed=0)) as stream:
                async for batch in stream:
                    assert batch.start == 0
                    break
            asked = len(server.requests)
            await asyncio.sleep(0.2)
            assert len(server.requests) <= asked + 4

    asyncio.run(ask())


def test_a_stream_survives_a_restart_of_the_server(start_server: Any, formula: Any) -> None:
    server = start_server()
    server.before_answer = lambda _: time.sleep(0.03)  # otherwise all batches would arrive before it stops

    async def ask() -> list[int]:
        rows = []
        async with AsyncDigitClient(server.target, retry=ONCE, limits=Limits(rows_per_request=16)) as client:
            number = 0
            async for batch in client.stream(320, batch_size=32, seed=9):
                np.testing.assert_array_equal(batch.images, formula(batch.labels, batch.seeds)[..., 0])
                rows.extend(batch.seeds.tolist())
                number += 1
                if number == 4:
                    server.stop()
                    threading.Timer(0.5, server.start).start()
        return rows

    assert asyncio.run(ask()) == [9 * 2**32 + row for row in range(320)]


def test_a_complete_batch_does_not_wait_for_the_next(server: Any) -> None:
    received = server.hold_from(30)

    async def ask() -> list[int | None]:
        async with AsyncDigitClient(server.target, timeout=Timeout(request_s=10), retry=ONCE) as client:
            stream = client.stream(80, batch_size=10, seed=0)
            starts = [(await anext(stream)).start for _ in range(3)]
            received.set()
            return starts + [batch.start async for batch in stream]

    assert asyncio.run(ask()) == list(range(0, 80, 10))


def test_a_generator_change_during_a_stream_is_an_error(server: Any) -> None:
    let_go = server.hold_from(50)

    async def ask() -> None:
        async with AsyncDigitClient(server.target) as client:
            stream = client.stream(200, batch_size=50, seed=0)
            await anext(stream)
            server.generator_id = "f" * 16
            let_go.set()
            with pytest.raises(GeneratorChangedError):
                [batch async for batch in stream]

    asyncio.run(ask())


def test_waiting_for_a_server_does_not_block_the_event_loop(start_server: Any) -> None:
    port = free_port()

    async def ask() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.02)
                ticks += 1

        async with AsyncDigitClient(f"127.0.0.1:{port}") as client:
            ticking = asyncio.create_task(tick())
            starter = threading.Timer(0.5, start_server, args=(port,))
            starter.start()
            await client.wait_ready(20)
            starter.join()
            ticking.cancel()
        return ticks

    assert asyncio.run(ask()) > 5
