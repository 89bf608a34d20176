"""Very large data sets, in shards: made side by side, and continued where they were interrupted.

A shard is written in a hidden folder and renamed into its place when it is whole; then the manifest is written anew. So
whatever ends the command, also a power cut, what is named as finished is finished, and what is not is made again. A
lock keeps two commands from one folder.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from digitforge_client.batch import Batch
from digitforge_client.client import DigitClient
from digitforge_client.common.extras import needs_extra
from digitforge_client.common.parallel import side_by_side
from digitforge_client.datasets.manifest import NAME, Manifest, Plan, Shard
from digitforge_client.datasets.writers import WRITERS, check_library
from digitforge_client.errors import DataError, DigitforgeError, GeneratorChangedError

#: Rows of one batch on the way into a shard.
_BATCH_ROWS: Final = 4096
#: How long a server may be away when a shard is begun.
_OUTAGE_S: Final = 60.0
_LOCK: Final = ".lock"
_UNFINISHED: Final = ".unfinished"

Advance = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One shard to be made, wherever that is."""

    client: DigitClient  # a copy of the same configuration in another process
    number: int
    shard: Shard
    plan: Plan
    generator_id: str
    place: Path  # where to write it for the time being


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What came of it."""

    job: _Job
    shard: Shard | None  # None where it failed
    error: DigitforgeError | None = None


def generate(
    client: DigitClient,
    folder: Path,
    plan: Plan,
    *,
    jobs: int = -1,
    scheduler: str | None = None,
    advance: Advance = lambda _: None,
) -> Manifest:
    """Write a data set in shards into a folder, or go on where an earlier call was interrupted.

    Shards of the manifest whose files are there in the right size are left as they are; the rest is made.

    Args:
        client: whom to ask.
        folder: a new or empty one, or one that this function filled, in whole or in part, by the same plan.
        plan: what it holds.
        jobs: processes, each with a client of its own; −1 for one on each core. One means this process.
        scheduler: address of a Dask scheduler, whose workers are used instead; they need digitforge, the same folder
            under the same name, and a way to the client's target.
        advance: called with a number of digits whenever so many more are finished; also with those of earlier calls.

    Returns:
        The manifest, with all shards finished.

    Raises:
        InvalidInputError: the generator has no such class, or its latents cannot be scaled so.
        DataError: the folder holds something else, or another data set, or is in use, or cannot be written.
        GeneratorChangedError: the data set was begun with another generator than the server's, or that changed.
        ServerError: the server could not answer; its subclasses say why. What is finished by then is kept.
        MissingExtraError: a library is needed that is not installed.
    """
    check_library(plan.format)
    folder = folder.absolute()  # a worker's working directory may be another one
    with _alone(folder):
        manifest = _begun(client, folder, plan)
        pending = []
        for number, shard in enumerate(manifest.shards):
            if _is_there(folder, shard):
                advance(shard.n)
            else:
                pending.append(number)
        shutil.rmtree(folder / _UNFINISHED, ignore_errors=True)  # of a call that was killed
        if pending:
            manifest = _make(client, folder, manifest, pending, jobs=jobs, scheduler=scheduler, advance=advance)
        return manifest


def _make(
    client: DigitClient,
    folder: Path,
    manifest: Manifest,
    pending: list[int],
    *,
    jobs: int,
    scheduler: str | None,
    advance: Advance,
) -> Manifest:
    """Make shards side by side, and put each into its place. After a failure no more are begun."""
    # a name of its own: a worker of a call that was killed may still be writing
    workshop = folder / _UNFINISHED / secrets.token_hex(4)
    failures: list[DigitforgeError] = []

    def to_do() -> Iterator[_Job]:
        for number in pending:
            if failures:
                return
            shard = manifest.shards[number]
            yield _Job(
                client=client,
                number=number,
                shard=shard,
                plan=manifest.plan,
                generator_id=manifest.generator_id,
                place=workshop / shard.file,
            )

    try:
        _make_folder(workshop)
        with closing(side_by_side(_make_shard, to_do(), jobs=jobs, scheduler=scheduler)) as all_made:
            for made in all_made:
                try:
                    shard = _finished(made)
                    made.job.place.replace(folder / shard.file)
                    manifest = manifest.with_shard(made.job.number, shard)
                    manifest.save(folder)
                except OSError as error:
                    place = folder / made.job.shard.file
                    failures.append(DataError(f"cannot write {place}: {error.strerror or error}"))
                except DigitforgeError as error:
                    failures.append(error)
                else:
                    advance(shard.n)
    finally:
        shutil.rmtree(folder / _UNFINISHED, ignore_errors=True)
    if failures:
        raise failures[0]
    return manifest


def _make_shard(job: _Job) -> _Made:
    """Write one shard; runs in a worker, which hands errors back as values, so that none of the others is lost."""
    plan, shard = job.plan, job.shard
    try:
        with job.client as client, WRITERS[plan.format](job.place, shard.n) as add:
            client.wait_ready(_OUTAGE_S)  # a server may be restarted between two shards, as in the midst of one
            for batch in digits_of(client, plan, shard, generator_id=job.generator_id):
                add(batch)
        shard = replace(shard, bytes=job.place.stat().st_size, sha256=checksum(job.place))
    except DigitforgeError as error:
        return _Made(job=job, shard=None, error=error)
    return _Made(job=job, shard=shard)


def _finished(made: _Made) -> Shard:
    """The shard that was made, if it was and can be seen from here."""
    if made.error is not None:
        raise made.error
    assert made.shard is not None
    if not made.job.place.is_file() or made.job.place.stat().st_size != made.shard.bytes:
        raise DataError(
            f"a worker wrote {made.job.place}, but it cannot be seen here: let all workers share the folder, under the "
            "same name"
        )
    return made.shard


def digits_of(client: DigitClient, plan: Plan, shard: Shard, *, generator_id: str) -> Iterator[Batch]:
    """Ask for a shard's digits, batch by batch.

    Raises:
        GeneratorChangedError: the server has another generator than *generator_id*.
        ServerError: the server could not answer; its subclasses say why.
    """
    for batch in client.stream(shard.n, batch_size=_BATCH_ROWS, **plan.sample_options(shard)):
        if batch.generator_id != generator_id:
            raise _changed(generator_id, batch.generator_id)
        yield batch


def checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _begun(client: DigitClient, folder: Path, plan: Plan) -> Manifest:
    """The manifest of what is in the folder, or a new one."""
    generator = client.generator()
    if (folder / NAME).exists():
        manifest = Manifest.load(folder)
        differing = [name for name in Plan.__dataclass_fields__ if getattr(manifest.plan, name) != getattr(plan, name)]
        if differing:
            there = ", ".join(f"{name} {getattr(manifest.plan, name)}" for name in differing)
            wanted = ", ".join(f"{name} {getattr(plan, name)}" for name in differing)
            raise DataError(
                f"{folder} holds another data set: {there}, where {wanted} was asked for; name another folder, or ask "
                "for the same to continue it"
            )
        if manifest.generator_id != generator.generator_id:
            raise _changed(manifest.generator_id, generator.generator_id)
        return manifest
    if any(each.name != _LOCK for each in folder.iterdir()):
        raise DataError(f"{folder} holds something else than a data set of `digitforge generate`; name a new folder")
    if plan.label is not None:
        generator.class_numbers(plan.label)
    plan.check_distribution(generator.latent_distribution)
    manifest = Manifest.new(plan, generator.card)
    manifest.save(folder)
    return manifest


def _is_there(folder: Path, shard: Shard) -> bool:
    """Whether a shard is finished and its file in the right size; `digitforge verify` looks closer."""
    try:
        return shard.finished and (folder / shard.file).stat().st_size == shard.bytes
    except OSError:
        return False


def _changed(begun: str, now: str) -> GeneratorChangedError:
    return GeneratorChangedError(
        f"the data set was begun with generator {begun}, but the server has {now}, whose digits differ; serve the "
        "former, or begin another data set in a new folder"
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}: {error.strerror}; name another place") from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder, made if there is none, for oneself; the lock ends with the process, however that ends."""
    with needs_extra("generate", "`digitforge generate`"):
        from filelock import FileLock, Timeout
    there = folder.exists()
    _make_folder(folder)
    if not os.access(folder, os.W_OK):
        raise DataError(f"cannot write into {folder}; name a folder that may be written to")
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DataError(f"another `digitforge generate` is at work in {folder}; wait for it, or stop it") from error
    except OSError as error:
        raise DataError(f"cannot write into {folder}: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()
        if not (folder / NAME).exists():  # refused
            (folder / _LOCK).unlink(missing_ok=True)
            if not there:
                with suppress(OSError):
                    folder.rmdir()
