"""Sampling: delivers complete batches in order. Each batch comes from one generator. It does no I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from digitforge_client.batch import Addresses, Batch
from digitforge_client.errors import (
    GeneratorChangedError,
    InvalidInputError,
    RequestRejectedError,
    ServerUnavailableError,
    UnexpectedReplyError,
)
from digitforge_client.protocol import queries
from digitforge_client.protocol.connection import Connection, Pipeline
from digitforge_client.protocol.description import Generator
from digitforge_client.protocol.requests import Joiner, empty_batch, sample_request, split
from digitforge_client.protocol.rows import AddressedRows, Rows, SampleSpec, check_sample_size, check_stream
from digitforge_client.protocol.steps import Emit, Progress, Steps, first_emitted

#: Give up after more changes of the generator in a row than this, because the servers disagree.
_MAX_CHANGES: Final = 3

#: One check of the generator covers all batches that have arrived, up to this many rows. A check after every small
#: batch would double the cost of a digit on a fast server.
_MAX_HELD_ROWS: Final = 8_192

RowsOf = Callable[[Generator], Rows]


class _Changed(Exception):  # noqa: N818 - a signal within this module
    """Another generator answered, or may have answered."""


@dataclass(kw_only=True)
class _Progress:
    """Progress of a delivery."""

    delivered: int = 0  # number of batches
    changes: int = 0  # changes of the generator since the last delivered batch


def sample(connection: Connection, spec: SampleSpec) -> Steps[Batch]:
    """Return one batch; see `DigitClient.sample`."""
    check_sample_size(spec.n, connection.limits.sample_rows)
    if spec.n == 0:
        return empty_batch(connection.cached_generator, seed=spec.seed)
    batches = _batches(connection, spec.rows, batch_size=spec.n, outage_s=0.0, accept_change=True)
    return (yield from first_emitted(batches))


def stream(
    connection: Connection, spec: SampleSpec, *, batch_size: int, on_change: str, outage_s: float | None
) -> Steps[None]:
    """Emit batches; see `DigitClient.stream`."""
    check_stream(batch_size, on_change)
    if spec.n == 0:
        return _nothing()
    return _batches(
        connection, spec.rows, batch_size=batch_size, outage_s=outage_s, accept_change=on_change == "accept"
    )


def fetch(connection: Connection, addresses: Addresses) -> Steps[Batch]:
    """Return one batch with the digits of *addresses*; see `DigitClient.fetch`."""
    check_sample_size(len(addresses), connection.limits.sample_rows)
    if not len(addresses):
        return empty_batch(connection.cached_generator, seed=None)

    def rows(generator: Generator) -> Rows:
        return AddressedRows.of(addresses, generator)

    batches = _batches(connection, rows, batch_size=len(addresses), outage_s=0.0, accept_change=True)
    return (yield from first_emitted(batches))


def _nothing() -> Steps[None]:
    yield from ()


def _batches(
    connection: Connection, rows_of: RowsOf, *, batch_size: int, outage_s: float | None, accept_change: bool
) -> Steps[None]:
    """Emit batches in order, each from one generator.

    Args:
        connection: the connection to use.
        rows_of: makes the rows for a generator. It is called again if the generator changes.
        batch_size: rows per batch. The last batch may be smaller.
        outage_s: how long to wait for a server that is away or busy.
        accept_change: continue if the server switches to another generator.

    Raises:
        GeneratorChangedError: the server switched to another generator and *accept_change* is false, or the servers
            have different generators.
    """
    progress = _Progress()
    generator, rows = yield from _begin(connection, rows_of)
    while True:
        deliver = _deliver if rows.latent_options is None else _deliver_by_latents
        try:
            yield from deliver(connection, generator, rows, progress, batch_size=batch_size, outage_s=outage_s)
        except _Changed:
            connection.cached_generator = None
            previous, generator = generator, (yield from connection.generator(outage_s=outage_s))
            progress.changes += 1
            targets = ", ".join(connection.targets)
            if progress.changes > _MAX_CHANGES:
                raise GeneratorChangedError(
                    f"the generator at {targets} changed {progress.changes} times in a row; all servers must serve the "
                    "same generator"
                ) from None
            if progress.delivered and not accept_change and previous.generator_id != generator.generator_id:
                raise GeneratorChangedError(
                    f"the generator at {targets} changed from {previous.generator_id} to {generator.generator_id} "
                    f"after {progress.delivered * batch_size} rows, so the same addresses now give other images; "
                    'start again, or accept the change with on_change="accept"'
                ) from None
            rows = rows_of(generator)
        else:
            return


def _begin(connection: Connection, rows_of: RowsOf) -> Steps[tuple[Generator, Rows]]:
    """Get the generator and make the rows. If they do not fit a cached generator, ask the server and try once more."""
    fresh = connection.cached_generator is None
    generator = yield from connection.generator()
    try:
        return generator, rows_of(generator)
    except (InvalidInputError, GeneratorChangedError):
        if fresh:
            raise
    connection.cached_generator = None
    generator = yield from connection.generator()
    return generator, rows_of(generator)


def _deliver(
    connection: Connection,
    generator: Generator,
    rows: Rows,
    progress: _Progress,
    *,
    batch_size: int,
    outage_s: float | None,
) -> Steps[None]:
    """Send requests ahead. Emit a batch when it is complete and the generator has not changed."""
    max_rows = min(connection.limits.rows_per_request, generator.max_rows)
    chunks = split(rows, batch_size=batch_size, max_rows=max_rows, first_batch=progress.delivered)
    pipeline = Pipeline(
        connection, ((chunk, sample_request(connection.model_spec, chunk)) for chunk in chunks), outage_s=outage_s
    )
    joiner = Joiner(generator, seed=rows.seed)
    held: list[Batch] = []  # complete batches that wait for a check of the generator
    answered: set[int] = set()  # targets that sent them
    try:
        while (received := (yield from pipeline.receive())) is not None:
            chunk, reply, at = received
            answered.add(at)
            try:
                joiner.add(chunk, reply)
            except UnexpectedReplyError:  # the answer may come from another generator
                yield from _check_generator(connection, generator, answered, outage_s)
                yield from _release(held, progress)
                raise
            done = chunk.batch * batch_size + chunk.offset + len(chunk)
            yield Progress(done=done, total=len(rows))
            if chunk.last:
                held.append(joiner.batch())
            if held and (not pipeline.arrived() or len(held) * batch_size >= _MAX_HELD_ROWS):
                yield from _check_generator(connection, generator, answered, outage_s)
                yield from _release(held, progress)
                answered.clear()
    finally:
        pipeline.cancel()


def _release(held: list[Batch], progress: _Progress) -> Steps[None]:
    """Emit batches that passed the check of the generator."""
    for batch in held:
        progress.delivered, progress.changes = progress.delivered + 1, 0
        yield Emit(value=batch)
    held.clear()


def _deliver_by_latents(
    connection: Connection,
    generator: Generator,
    rows: Rows,
    progress: _Progress,
    *,
    batch_size: int,
    outage_s: float | None,
) -> Steps[None]:
    """Like `_deliver`, for scaled latents and blends of classes: request latents, then their images.

    Requests are sent ahead only within a batch.
    """
    latent_options = rows.latent_options
    assert latent_options is not None
    for begin in range(progress.delivered * batch_size, len(rows), batch_size):
        n = min(batch_size, len(rows) - begin)
        labels, seeds = rows.addresses(begin, n)
        weights, answered = latent_options.weights(begin, n), set[int]()
        delivery = {"outage_s": outage_s, "answered": answered}
        try:
            latents = yield from queries.latents(connection, seeds, **delivery)
            latents = latent_options.scaled(latents, distribution=generator.latent_distribution)
            images = yield from queries.from_latents(
                connection, latents, labels=labels, class_weights=weights, before=begin, total=len(rows), **delivery
            )
        except (UnexpectedReplyError, RequestRejectedError):  # the answer may come from another generator
            yield from _check_generator(connection, generator, answered, outage_s)
            raise
        yield from _check_generator(connection, generator, answered, outage_s)
        batch = Batch(
            images=images,
            labels=np.full(n, -1, dtype=np.int64) if labels is None else labels,
            seeds=seeds,
            generator_id=generator.generator_id,
            seed=rows.seed,
            class_weights=weights,
            class_names=generator.class_names,
            **latent_options.scaling,
        )
        yield from _release([batch], progress)


def _check_generator(
    connection: Connection, generator: Generator, answered: set[int], outage_s: float | None
) -> Steps[None]:
    """Ask the targets that answered for their card. Raise `_Changed` if a card belongs to another generator.

    The version number in a reply is not enough: after a restart, a server may have another generator under the same
    number. If one of several servers went away before this check, raise `_Changed` too, so that the batch is requested
    again.
    """
    for at in sorted(answered):
        try:
            card = yield from connection.card(at=at, outage_s=outage_s if len(connection.targets) == 1 else 0.0)
        except ServerUnavailableError:
            if len(connection.targets) == 1:
                raise
            raise _Changed from None
        if card.get("generator_id") != generator.generator_id:
            raise _Changed
