"""The client's own cost: against a server that answers at once, beside a client written with the official stubs.

The server is a process of its own that sends prepared answers; what is measured is the client's work alone.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator

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
from digitforge_client.wire import GET_METADATA, PREDICT, messages
from digitforge_client.wire.tensors import encode

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


def measure(action: Callable[[], int]) -> tuple[list[float], list[float]]:
    """Images per second, and microseconds of processor time per image, sorted."""
    action()
    rates, costs = [], []
    for _ in range(REPEATS):
        wall, processor = time.perf_counter(), time.process_time()
        n = action()
        rates.append(n / (time.perf_counter() - wall))
        costs.append(1e6 * (time.process_time() - processor) / n)
    return sorted(rates), sorted(costs)


def report(name: str, action: Callable[[], int]) -> float:
    rates, costs = measure(action)
    print(
        f"{name:<58} {statistics.median(rates):>11,.0f} images/s ({rates[0]:,.0f} to {rates[-1]:,.0f}), "
        f"{statistics.median(costs):.2f} µs of processor time per image, {REPEATS} repeats"
    )
    return statistics.median(costs)


def test_images_per_second_against_prepared_answers(target: str) -> None:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    n = 100 * ROWS

    def ours() -> int:
        with DigitClient(target, limits=Limits(rows_per_request=ROWS)) as client:
            return len(client.sample(n, seed=0))

    def official(model: str) -> Callable[[], int]:
        def ask() -> int:
            options = [("grpc.max_receive_message_length", 64 * 2**20)]
            with grpc.insecure_channel(target, options=options) as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                done = 0
                while done < n:
                    request = predict_pb2.PredictRequest()
                    request.model_spec.name = model
                    request.inputs["labels"].CopyFrom(tf.make_tensor_proto(np.arange(ROWS) % 10, tf.int64))
                    request.inputs["seeds"].CopyFrom(tf.make_tensor_proto(np.arange(done, done + ROWS), tf.int64))
                    reply = stub.Predict(request, timeout=30)
                    done += len(tf.make_ndarray(reply.outputs["images"]))
            return done

        return ask

    print()
    one = report(f"DigitClient.sample, {n:,} images, {ROWS} a request", ours)
    other = report("official stubs, one request after another, tensor_content", official("digits"))
    report("official stubs, one request after another, typed fields", official("typed"))
    print(f"{'processor time per image, ours ÷ official (tensor_content)':<58} {one / other:>11.2f}")
    assert one > 0


def test_the_memory_of_a_long_stream(target: str) -> None:
    n = 488 * 4096  # prepared answers have a fixed number of rows
    with DigitClient(target, limits=Limits(rows_per_request=ROWS)) as client:
        stream = client.stream(n, batch_size=4096, seed=0)
        next(stream)
        tracemalloc.start()
        seen = sum(len(batch) for batch in stream)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    print(f"\n{'largest memory of arrays and objects, stream of 1,998,848':<58} {peak / 2**20:>11.1f} MiB")
    assert seen == n - 4096
