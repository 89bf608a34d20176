"""What `digitforge serve` prepares before it serves: TensorFlow without Keras, GPUs, and OpenTelemetry."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from digitforge_client.common.command import import_quietly
from digitforge_client.common.extras import needs_extra
from digitforge_client.common.streams import standard_error_into

_LEGACY_KERAS = "TF_USE_LEGACY_KERAS"


def import_tensorflow() -> None:
    """Import TensorFlow without Keras. SavedModels do not need Keras, and its import takes longer than TensorFlow's."""
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # a server's log needs TensorFlow's errors
    given = os.environ.get(_LEGACY_KERAS)
    os.environ[_LEGACY_KERAS] = "1"  # TensorFlow then looks for tf_keras and skips Keras if it is missing
    try:
        import_quietly("tensorflow")
        gc.freeze()  # otherwise the garbage collector spends seconds on TensorFlow's objects at exit
    finally:
        del os.environ[_LEGACY_KERAS]
        if given is not None:
            os.environ[_LEGACY_KERAS] = given


def find_gpus() -> None:
    """Let TensorFlow look for GPUs, which it does once. Hide its error about the driver if there is no GPU."""
    import tensorflow as tf

    with nullcontext() if has_gpu() else hidden_lines(b"failed call to cuInit"):
        tf.config.list_physical_devices()


def has_gpu() -> bool:
    """Whether the machine has an NVIDIA GPU, so that an error of its driver matters. WSL has another device."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()


@contextmanager
def hidden_lines(text: bytes) -> Iterator[None]:
    """Hide lines with this *text* in what libraries write to standard error during the ``with`` block."""
    with tempfile.TemporaryFile() as captured:
        try:
            with standard_error_into(captured):
                yield
        finally:
            captured.seek(0)
            with suppress(OSError):  # standard error is closed or full
                os.write(2, b"".join(line for line in captured if text not in line))


@contextmanager
def sending_spans() -> Iterator[None]:
    """Send spans to a collector. OpenTelemetry's environment variables choose it, and what to send.

    Raises:
        MissingExtraError: the extra ``otel`` is not installed.
    """
    with needs_extra("otel", "--otel"):
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

    default = Resource.create({"service.name": "digitforge-serve"})
    provider = TracerProvider(resource=default.merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()  # sends the last spans
