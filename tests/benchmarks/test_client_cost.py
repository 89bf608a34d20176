"""Measures the client's own cost, compared with a client written with the official stubs.

The server runs in another process and sends prepared answers, so only the client's work counts.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest

from digitforge_client import DigitClient, Limits

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROWS = 512
REPEATS = 7
SERVER = """
import sys
from concurrent import futures
import grpc, numpy as np
from digitforge_client.testing import FakeTransport
from digitforge_client.transport.wire import GET_METADATA, PREDICT, messages
from digitforge_client.transport.wire.tensors import encode

rows = int(sys.argv[1])
fake = FakeTransport(max_rows=rows)
images = np.random.default_rng(0).integers(0, 256, (rows, 28, 28, 1), dtype=np.uint8)
content = messages.PredictResponse(outputs={"images": encode(images), "valid": encode(np.ones(rows, bool))})
typed = messages.PredictResponse()
typed.CopyFrom(content)
for name, field, values in (("images", "int_val", images.ravel()), ("valid", "bool_val", np.ones(rows, bool))):
    typed.outputs[name].tensor_content = b""
    getattr(typed.outputs[name], field).extend(values.tolist())
prepared = {"": content.SerializeToString(), "typed": typed.SerializeToString()}

def predict(data, context):
    request = messages.PredictRequest.FromString(data)
    if request.model_spec.signature_name == "card":
        return fake.send(PREDICT, request, timeout_s=None).result().SerializeToString()
    return prepared["typed" if request.model_spec.name == "typed" else ""]

def metadata(data, context):
    request = messages.GetModelMetadataRequest.FromString(data)
    return fake.send(GET_METADATA, request, timeout_s=None).result().SerializeToString()

class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(predict if details.method.endswith("Predict") else metadata)

server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((Handler(),))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
"""


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    command = [sys.executable, "-c", SERVER, str(ROWS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            yield f"127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.terminate()


def cost(action: Callable[[], int]) -> tuple[float, float]:
    """Wall time and processor time per image, in seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    n = action()
    return (time.perf_counter() - wall) / n, (time.process_time() - processor) / n


def middle(values: list[float], form: str) -> str:
    return f"{statistics.median(values):>9{form}} ({min(values):{form}} to {max(values):{form}})"


def test_images_per_second_against_prepared_answers(target: str) -> None:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    n = 400 * ROWS

    def ours(model: str) -> int:
        with DigitClient(target, model=model, limits=Limits(rows_per_request=ROWS)) as client:
            return len(client.sample(n, seed=0))

    def stream(requests: int) -> int:
        with DigitClient(target, limits=Limits(rows_per_request=ROWS)) as client:
            return sum(len(batch) for batch in client.stream(n, batch_size=requests * ROWS, seed=0))

    def official(model: str, *, joined: int = 1) -> Callable[[], int]:
        """A client with the official stubs: one request after another, with *joined* answers in a batch."""

        def ask() -> int:
            options = [("grpc.max_receive_message_length", 64 * 2**20)]
            with grpc.insecure_channel(target, options=options) as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                done, parts = 0, []
                while done < n:
                    request = predict_pb2.PredictRequest()
                    request.model_spec.name = model
                    request.inputs["labels"].CopyFrom(tf.make_tensor_proto(np.arange(ROWS) % 10, tf.int64))
                    request.inputs["seeds"].CopyFrom(tf.make_tensor_proto(np.arange(done, done + ROWS), tf.int64))
                    reply = stub.Predict(request, timeout=30)
                    parts.append(tf.make_ndarray(reply.outputs["images"]))
                    if len(parts) == joined:
                        done += len(np.concatenate(parts) if joined > 1 else parts[0])
                        parts.clear()
            return done

        return ask

    sides: dict[str, Callable[[], int]] = {
        "DigitClient.sample": partial(ours, "digits"),
        f"DigitClient.stream, batches of {8 * ROWS}": partial(stream, 8),
        f"DigitClient.stream, batches of {ROWS}": partial(stream, 1),
        "official stubs, one array": official("digits", joined=n // ROWS),
        f"official stubs, batches of {8 * ROWS}": official("digits", joined=8),
        f"official stubs, batches of {ROWS}": official("digits"),
        "official stubs, typed fields": official("typed"),
        "DigitClient.sample, typed fields": partial(ours, "typed"),
    }
    for side in sides.values():
        side()  # warm-up: connections and caches
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(REPEATS):  # in turn, so a busy machine slows all sides
        for name, side in sides.items():
            costs[name].append(cost(side))
    print(f"\n{n:,} images, {ROWS} per request, {REPEATS} repeats in turn")
    for name, both in costs.items():
        print(f"  {name:<40} {middle([1 / wall for wall, _ in both], ',.0f')} images/s")
        print(f"  {'':<40} {middle([1e6 * processor for _, processor in both], '.2f')} µs of processor time per image")
    *mine, one, eight, single, typed, ours_typed = costs.items()
    faster = [b[0] / a[0] for a, b in zip(ours_typed[1], typed[1], strict=True)]
    print(f"  both on typed fields: images per second ÷ official stubs {middle(faster, '.2f')}")
    for (name, ours_each), (other, theirs) in zip(mine, (one, eight, single), strict=True):
        shares = [a[1] / b[1] for a, b in zip(ours_each, theirs, strict=True)]
        faster = [b[0] / a[0] for a, b in zip(ours_each, typed[1], strict=True)]
        print(f"  {name}\n    processor time ÷ {other:<42} {middle(shares, '.2f')}")
        print(f"    {'images per second ÷ official stubs, typed fields':<59} {middle(faster, '.2f')}")
        assert min(shares) > 0


LONG_STREAM = """
import sys
from digitforge_client import DigitClient, Limits

def kib(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))

before, n = kib("VmRSS"), 0
with DigitClient(sys.argv[1], limits=Limits(rows_per_request=int(sys.argv[2]))) as client:
    for batch in client.stream(int(sys.argv[3]), batch_size=4096, seed=0):
        n += len(batch)
print(n, before, kib("VmHWM"))
"""


def test_the_memory_of_a_long_stream(target: str) -> None:
    n = 10_000_000 // 4096 * 4096  # prepared answers have a fixed number of rows
    command = [sys.executable, "-c", LONG_STREAM, target, str(ROWS), str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seen, before, peak = map(int, done.stdout.split())
    print(
        f"\na stream of {n:,} digits: peak {(peak - before) / 1024:.1f} MiB above the {before / 1024:.1f} at the start"
    )
    assert seen == n
