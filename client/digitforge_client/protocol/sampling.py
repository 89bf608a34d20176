"""Digits in batches: in order, whole, and each batch from one generator. No input or output."""

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
from digitforge_client.protocol.connection import Ahead, Connection
from digitforge_client.protocol.description import Generator
from digitforge_client.protocol.requests import Joiner, empty_batch, sample_request, split
from digitforge_client.protocol.rows import AddressedRows, Rows, SampleSpec, check_sample_size, check_stream
from digitforge_client.protocol.steps import Emit, Steps, first

#: A batch that met another generator so often met servers that differ, not one that was replaced.
_MOST_CHANGES: Final = 3

#: Whether the generator is still the same is asked once for all batches that are there, up to so many rows: to ask
#: after every small batch of a fast server would double the cost of a digit.
_MOST_HELD_ROWS: Final = 8_192

RowsOf = Callable[[Generator], Rows]


class _Changed(Exception):  # noqa: N818 - a signal within this module
    """Another generator answers, or may have answered."""


@dataclass(kw_only=True)
class _Progress:
    """How far a delivery has come."""

    delivered: int = 0  # batches
    changes: int = 0  # of the generator, since the last delivered batch


def sample(connection: Connection, spec: SampleSpec) -> Steps[Batch]:
    """One batch; see `DigitClient.sample`."""
    check_sample_size(spec.n, connection.limits.sample_rows)
    if spec.n == 0:
        return empty_batch(connection.known, seed=spec.seed)
    return (yield from first(_batches(connection, spec.rows, batch_size=spec.n, outage_s=0.0, accept_change=True)))


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
    """One batch, of these addresses; see `DigitClient.fetch`."""
    check_sample_size(len(addresses), connection.limits.sample_rows)
    if not len(addresses):
        return empty_batch(connection.known, seed=None)

    def rows(generator: Generator) -> Rows:
        return AddressedRows.of(addresses, generator)

    return (yield from first(_batches(connection, rows, batch_size=len(addresses), outage_s=0.0, accept_change=True)))


def _nothing() -> Steps[None]:
    yield from ()


def _batches(
    connection: Connection, rows_of: RowsOf, *, batch_size: int, outage_s: float | None, accept_change: bool
) -> Steps[None]:
    """Emit batches, in order, each from one generator.

    Args:
        connection: with whom.
        rows_of: the addresses, given the generator; called again for another one.
        batch_size: rows of every batch but the last.
        outage_s: how long to wait for a server that went away or is busy.
        accept_change: go on with another generator, should the server get one.

    Raises:
        GeneratorChangedError: the server got another one, and that is not accepted.
    """
    progress = _Progress()
    generator, rows = yield from _begin(connection, rows_of)
    while True:
        deliver = _deliver if rows.latent_options is None else _deliver_by_latents
        try:
            yield from deliver(connection, generator, rows, progress, batch_size=batch_size, outage_s=outage_s)
        except _Changed:
            connection.known = None
            before, generator = generator, (yield from connection.generator(outage_s=outage_s))
            progress.changes += 1
            where = ", ".join(connection.targets)
            if progress.changes > _MOST_CHANGES:
                raise GeneratorChangedError(
                    f"{where} gave different generators {progress.changes} times in a row; let all servers there "
                    "serve the same one"
                ) from None
            if progress.delivered and not accept_change and before.generator_id != generator.generator_id:
                raise GeneratorChangedError(
                    f"the generator at {where} changed from {before.generator_id} to {generator.generator_id} "
                    f"after {progress.delivered * batch_size} rows: the same addresses are other images now; "
                    'begin anew, or accept it with on_change="accept"'
                ) from None
            rows = rows_of(generator)
        else:
            return


def _begin(connection: Connection, rows_of: RowsOf) -> Steps[tuple[Generator, Rows]]:
    """The generator and the rows; a refusal that rests on old knowledge is looked into first."""
    fresh = connection.known is None
    generator = yield from connection.generator()
    try:
        return generator, rows_of(generator)
    except (InvalidInputError, GeneratorChangedError):
        if fresh:
            raise
    connection.known = None
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
    """Send requests ahead; emit batches when they are complete and the generator is found to be still the same."""
    max_rows = min(connection.limits.rows_per_request, generator.max_rows)
    chunks = split(rows, batch_size=batch_size, max_rows=max_rows, first_batch=progress.delivered)
    ahead = Ahead(
        connection, ((chunk, sample_request(connection.model_spec, chunk)) for chunk in chunks), outage_s=outage_s
    )
    joiner = Joiner(generator, seed=rows.seed)
    held: list[Batch] = []  # complete, and not yet known to be this generator's
    answered: set[int] = set()  # targets that answered for them
    try:
        while (received := (yield from ahead.receive())) is not None:
            chunk, reply, at = received
            answered.add(at)
            try:
                joiner.add(chunk, reply)
            except UnexpectedReplyError:  # perhaps because another generator sent it
                yield from _check(connection, generator, answered, outage_s)
                yield from _release(held, progress)
                raise
            if chunk.last:
                held.append(joiner.batch())
            if held and (not ahead.arrived() or len(held) * batch_size >= _MOST_HELD_ROWS):
                yield from _check(connection, generator, answered, outage_s)
                yield from _release(held, progress)
                answered.clear()
    finally:
        ahead.cancel()


def _release(held: list[Batch], progress: _Progress) -> Steps[None]:
    """Emit batches that are known to be the generator's."""
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
    """As `_deliver`, by way of the latents: scaled ones, or those of blends. Requests run ahead within a batch."""
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
                connection, latents, labels=labels, class_weights=weights, **delivery
            )
        except (UnexpectedReplyError, RequestRejectedError):  # perhaps because another generator sent it
            yield from _check(connection, generator, answered, outage_s)
            raise
        yield from _check(connection, generator, answered, outage_s)
        batch = Batch(
            images=images,
            labels=np.full(n, -1, dtype=np.int64) if labels is None else labels,
            seeds=seeds,
            generator_id=generator.generator_id,
            seed=rows.seed,
            class_weights=weights,
            **latent_options.scaling,
        )
        yield from _release([batch], progress)


def _check(connection: Connection, generator: Generator, answered: set[int], outage_s: float | None) -> Steps[None]:
    """Ask those who answered for their card, and signal if it is another generator's.

    The version number in a reply would not do: a restarted server may hold another generator under the same one. Where
    one of several servers went away before it could be asked, the batch is asked for again.
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
