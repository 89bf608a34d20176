"""A hostile or broken server causes a `DigitforgeError`, or a result of the right form, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from digitforge_client import DigitClient, DigitforgeError, Limits, Retry, Timeout, UnexpectedReplyError
from digitforge_client.testing import FakeTransport
from digitforge_client.transport.wire import GET_METADATA, GET_STATUS, PREDICT, messages

REQUESTS: dict[str, tuple[Any, Any]] = {
    PREDICT.path: (PREDICT, messages.PredictRequest),
    GET_METADATA.path: (GET_METADATA, messages.GetModelMetadataRequest),
    GET_STATUS.path: (GET_STATUS, messages.GetModelStatusRequest),
}
Mutation = Callable[[str, Any], Any]  # (signature or method, reply) => reply or bytes


class HostileServer:
    """A real gRPC server whose replies a test may spoil. It makes them as `FakeTransport` does."""

    def __init__(self) -> None:
        self.mutate: Mutation = lambda _, reply: reply
        self.compression = grpc.Compression.NoCompression
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers((self,))
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def service(self, details: Any) -> Any:
        method, request_type = REQUESTS[details.method]

        def answer(data: bytes, context: grpc.ServicerContext) -> bytes:
            request = request_type.FromString(data)
            reply = FakeTransport().send(method, request, timeout_s=None).result()
            name = request.model_spec.signature_name or details.method.rpartition("/")[2]
            spoiled = self.mutate(name, reply)
            if isinstance(spoiled, tuple):
                context.abort(*spoiled)
            context.set_compression(self.compression)
            return spoiled if isinstance(spoiled, bytes) else spoiled.SerializeToString()

        return grpc.unary_unary_rpc_method_handler(answer)

    def stop(self) -> None:
        self._server.stop(0).wait()


@pytest.fixture(scope="module")
def hostile() -> Iterator[HostileServer]:
    server = HostileServer()
    yield server
    server.stop()


def connect(hostile: HostileServer) -> DigitClient:
    timeout = Timeout(request_s=20, outage_s=0.1)
    return DigitClient(hostile.target, retry=Retry(attempts=1), timeout=timeout, limits=Limits(message_mib=4))


def use(client: DigitClient) -> None:
    """Call every method. Each must return a result of the right form, or raise a DigitforgeError."""
    for call, valid in (
        (client.card, lambda card: isinstance(card, dict)),
        (client.metadata, lambda metadata: isinstance(metadata.model, str)),
        (client.generator, lambda generator: len(generator.image_shape) == 3),
        (lambda: client.sample(5), lambda batch: batch.images.dtype == np.uint8 and len(batch.images) == 5),
        (lambda: client.sample(5, expansion=1.2), lambda batch: batch.images.dtype == np.uint8),
        (lambda: client.sample(5, truncation=0.5), lambda batch: len(batch.images) == 5),
        (lambda: client.sample(labels=["3", "7"]), lambda batch: batch.labels.tolist() != [0, 0]),
        (lambda: client.fetch([(3, 7)]), lambda batch: batch.seeds.tolist() == [7]),
        (lambda: list(client.stream(6, batch_size=3)), lambda batches: len(batches) == 2),
        (lambda: client.latents([1, 2]), lambda latents: np.isfinite(latents).all()),
        (lambda: client.interpolate((1, 1), (2, 2), steps=3), lambda images: len(images) == 3),
        (lambda: client.seen(np.zeros((2, 28, 28), np.uint8)), lambda seen: set(seen.view(np.uint8)) <= {0, 1}),
        (lambda: client.augment(np.zeros((3, 784), np.uint8), [1, 1, 2]), lambda augmented: len(augmented[0]) == 4),
        (lambda: client.wait_ready(0.01), lambda _: True),
    ):
        with suppress(DigitforgeError):
            assert valid(call())  # type: ignore[no-untyped-call]


BAD_NUMBERS = st.sampled_from(
    [-1, 0, 1.5, 2**31, 10**6, 2**62, 2**63, 10**400, float("inf"), float("nan"), -0.0, True, "28", "", None]
)
JSON = st.recursive(BAD_NUMBERS | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
FIELDS = st.sampled_from(list(FakeTransport().card))
SHAPES = st.lists(st.sampled_from([-1, 0, 1, 2, 3, 5, 28, 10**6, 2**31, 2**62]), max_size=5) | st.just([1] * 104)


def with_card(text: bytes) -> Mutation:
    def mutate(name: str, reply: Any) -> Any:
        if name == "card":
            reply.outputs["card"].string_val[:] = [text]
        return reply

    return mutate


def nested(levels: int) -> bytes:
    return b'{"x":' + b"[" * levels + b"]" * levels + b"}"


@example(changes={"image_shape": [-1, 28, 1]})
@example(changes={"image_shape": [10**6, 10**6, 3]})
@example(changes={"image_shape": [1] * 104})
@example(changes={"image_shape": [28, 28]})
@example(changes={"latent_size": 10**12})
@example(changes={"latent_size": None})
@example(changes={"latent_law": ["normal"]})
@example(changes={"class_names": 10})
@example(changes={"class_names": "0123456789"})
@example(changes={"class_names": ["\ud800"] * 10})
@example(changes={"class_names": ["\x1b[2J"] * 10})
@example(changes={"class_names": [str(number) for number in range(70_000)]})
@example(changes={"max_rows": float("inf")})
@example(changes={"generator_id": "\ud800"})
@example(changes={"generator_id": {"a": 1}})
@given(changes=st.dictionaries(FIELDS, JSON | st.lists(BAD_NUMBERS, min_size=3, max_size=3), min_size=1, max_size=3))
def test_any_card_gives_a_result_or_a_digitforge_error(hostile: HostileServer, changes: dict[str, Any]) -> None:
    hostile.mutate = with_card(json.dumps(FakeTransport().card | changes).encode())
    with connect(hostile) as client:
        use(client)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (nested(10_000), "more than 100 levels"),
        (nested(500), "more than 100 levels"),
        (b"9" * 10_000, "cannot be read"),
        (b'{"name": "\\ud800"}', "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"", "cannot be read"),
        (b"[]", "JSON list"),
    ],
    ids=["too deep for Python", "too deep", "too many digits", "half a surrogate pair", "UTF-16", "empty", "no object"],
)
def test_a_card_that_cannot_be_read_is_an_unexpected_reply(hostile: HostileServer, text: bytes, says: str) -> None:
    hostile.mutate = with_card(text)
    with connect(hostile) as client:
        for call in (client.card, lambda: client.sample(1)):
            with pytest.raises(UnexpectedReplyError, match=says):
                call()
        use(client)


def spoil_tensors(
    reply: Any, *, shape: list[int] | None, dtype: int | None, content: bytes | None, ints: list[int] | None
) -> Any:
    for tensor in reply.outputs.values():
        if shape is not None:
            del tensor.tensor_shape.dim[:]
            for size in shape:
                tensor.tensor_shape.dim.add(size=size)
        if dtype is not None:
            tensor.dtype = dtype
        if content is not None:
            tensor.tensor_content = content
        if ints is not None:
            tensor.tensor_content = b""
            tensor.int_val[:] = ints
    return reply


@example(signature="serving_default", shape=[1] * 104, dtype=None, content=None, ints=[1])
@example(signature="serving_default", shape=[5, 28, 28, 1], dtype=None, content=None, ints=[])
@example(signature="serving_default", shape=[5, 28, 28, 1], dtype=None, content=None, ints=[0])
@example(signature="serving_default", shape=[0, 2**62, 1], dtype=None, content=b"", ints=None)
@example(signature="latents", shape=None, dtype=None, content=b"\xff" * 4 * 8 * 5, ints=None)
@example(signature="seen", shape=None, dtype=None, content=b"\x07\x00", ints=None)
@example(signature="card", shape=[2**28], dtype=None, content=None, ints=None)
@given(
    signature=st.sampled_from(["serving_default", "latents", "from_latents", "card", "seen"]),
    shape=st.none() | SHAPES,
    dtype=st.none() | st.sampled_from([0, 1, 2, 3, 4, 7, 9, 10, 14, 20, 99, 2**31 - 1, -1]),
    content=st.none() | st.binary(max_size=40) | st.just(b"\xff" * 784),
    ints=st.none() | st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
)
def test_any_tensor_gives_a_result_or_a_digitforge_error(
    hostile: HostileServer, signature: str, **spoiled: Any
) -> None:
    hostile.mutate = lambda name, reply: spoil_tensors(reply, **spoiled) if name == signature else reply
    with connect(hostile) as client:
        use(client)


@given(name=st.sampled_from(["serving_default", "card", "GetModelMetadata", "GetModelStatus"]), data=st.binary())
@example(
    name="GetModelMetadata",
    data=messages.GetModelMetadataResponse(metadata={"signature_def": messages.Any()}).SerializeToString(),
)
@example(name="serving_default", data=b"")
@example(name="card", data=b"\xff" * 100)
def test_any_bytes_give_a_result_or_a_digitforge_error(hostile: HostileServer, name: str, data: bytes) -> None:
    hostile.mutate = lambda method, reply: data if method == name else reply
    with connect(hostile) as client:
        use(client)


@given(code=st.sampled_from([code for code in grpc.StatusCode if code.value[0]]), details=st.text(max_size=50))
def test_any_status_gives_a_digitforge_error(hostile: HostileServer, code: Any, details: str) -> None:
    with suppress(UnicodeEncodeError):
        details.encode("utf-8")
        hostile.mutate = lambda name, reply: (code, details) if name == "serving_default" else reply
        with connect(hostile) as client, pytest.raises(DigitforgeError) as caught:
            next(client.stream(5))
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("changes", [{"class_names": 5}, {"image_shape": [-1, 1, 1]}, {"x": "nested"}], ids=str)
def test_a_command_ends_with_one_line(hostile: HostileServer, changes: dict[str, Any], tmp_path: Path) -> None:
    text = json.dumps(FakeTransport().card | changes).encode()
    hostile.mutate = with_card(text.replace(b'"nested"', nested(10_000)))
    out = tmp_path / "digits.npz"
    command = [sys.executable, "-m", "digitforge", "sample", "--n", "5", "--out", str(out), "--server", hostile.target]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (3, "", 1)
    assert result.stderr.startswith("digitforge: the generator's card")
    assert not out.exists()


def test_images_without_content_are_noticed(hostile: HostileServer) -> None:
    for ints in ([], [0], [255] * 100):
        hostile.mutate = lambda name, reply, ints=ints: (  # type: ignore[misc]
            spoil_tensors(reply, shape=None, dtype=None, content=None, ints=ints)
            if name == "serving_default"
            else reply
        )
        with connect(hostile) as client, pytest.raises(UnexpectedReplyError, match="expected 3920"):
            client.sample(5)


def test_an_answer_that_inflates_beyond_the_limit_is_an_error(hostile: HostileServer) -> None:
    def inflate(name: str, reply: Any) -> Any:
        reply.outputs["zeros"].tensor_content = bytes(100 * 2**20)  # 100 KB on the wire
        return reply

    hostile.mutate, hostile.compression = inflate, grpc.Compression.Gzip
    with connect(hostile) as client, pytest.raises(DigitforgeError, match=r"Limits\(message_mib"):
        client.card()
    hostile.compression = grpc.Compression.NoCompression


def test_a_result_beyond_all_memory_is_an_error(hostile: HostileServer) -> None:
    card = FakeTransport().card | {"latent_size": 2**16}
    hostile.mutate = with_card(json.dumps(card).encode())
    with connect(hostile) as client, pytest.raises(DigitforgeError, match="memory"):
        client.latents(np.arange(10**6))
