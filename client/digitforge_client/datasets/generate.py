"""Generates very large data sets in shards, in parallel, and continues after an interruption.

A shard is written in a hidden folder. When it is complete, it is moved to its final place, and the manifest marks it
as finished. So finished shards are complete, even after a power loss. All other shards are made again. A lock file
keeps two commands from writing into the same folder.
"""

from __future__ import annotations

import hashlib
import json
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
from digitforge_client.common.files import make_folder, replacing
from digitforge_client.common.parallel import Scheduler, side_by_side
from digitforge_client.datasets import croissant, data_card
from digitforge_client.datasets.manifest import NAME, Manifest, Plan, Shard
from digitforge_client.datasets.writers import WRITERS, check_library
from digitforge_client.errors import DataError, DigitforgeError, GeneratorChangedError

#: Rows per batch while a shard is written.
_BATCH_ROWS: Final = 4096
#: How long a server may be away at the start of a shard.
_OUTAGE_S: Final = 60.0
_LOCK: Final = ".lock"
_UNFINISHED: Final = ".unfinished"

Advance = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class _Job:
    """The job of making one shard. It is sent to a worker."""

    client: DigitClient  # a worker receives a new client with the same configuration
    number: int
    shard: Shard
    plan: Plan
    generator_id: str
    temporary: Path  # file to write


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """The outcome of a job: a finished shard or an error."""

    job: _Job
    shard: Shard | None  # None after an error
    error: DigitforgeError | None = None


def generate(
    client: DigitClient,
    folder: Path,
    plan: Plan,
    *,
    jobs: int = -1,
    scheduler: Scheduler | str | None = None,
    advance: Advance = lambda _: None,
) -> Manifest:
    """Write a data set in shards into a folder, or continue an interrupted one.

    A finished shard is kept if its file exists and has the right size. All other shards are made. A data set in the
    format ``parquet`` also gets a data card and Croissant metadata.

    Args:
        client: the client that requests the digits.
        folder: a new or empty folder, or the folder of an earlier call with the same plan.
        plan: the digits and their split into shards.
        jobs: number of processes, each with its own client. −1 uses one per core, 1 uses this process.
        scheduler: a Dask scheduler, or its address. Its workers are used instead of processes. They need digitforge,
            the same folder under the same path, and access to the client's target.
        advance: called with the number of digits after each finished shard, including shards of earlier calls.

    Returns:
        The manifest, with all shards finished.

    Raises:
        InvalidInputError: the generator lacks the class, or its latents cannot be scaled like this.
        DataError: the folder holds something else, is in use, or cannot be written.
        GeneratorChangedError: the server has another generator than the one that started the data set.
        ServerError: the server could not answer; the subclass says why. Finished shards are kept.
        MissingExtraError: a library is needed that is not installed.
    """
    check_library(plan.format)
    folder = folder.absolute()  # a worker may have another working directory
    with _locked(folder):
        manifest = _load_or_create(client, folder, plan)
        pending = []
        for number, shard in enumerate(manifest.shards):
            if _is_complete(folder, shard):
                advance(shard.n)
            else:
                pending.append(number)
        shutil.rmtree(folder / _UNFINISHED, ignore_errors=True)  # left by a process that was killed
        if pending:
            manifest = _make_shards(client, folder, manifest, pending, jobs=jobs, scheduler=scheduler, advance=advance)
        if plan.format == "parquet":
            _describe(folder, manifest, again=bool(pending))
        return manifest


def _describe(folder: Path, manifest: Manifest, *, again: bool) -> None:
    """Write the data card and the Croissant metadata. Keep a data card that exists, because people add a license.

    Args:
        folder: the folder of the data set.
        manifest: its manifest, with all shards finished.
        again: replace Croissant metadata that exist.
    """
    texts = {data_card.NAME: data_card.data_card(manifest)}
    texts[croissant.NAME] = json.dumps(croissant.croissant(manifest), indent=2, ensure_ascii=False) + "\n"
    for name, text in texts.items():
        if not (folder / name).exists() or (again and name == croissant.NAME):
            with replacing(folder / name) as file:
                file.write(text.encode())


def _make_shards(
    client: DigitClient,
    folder: Path,
    manifest: Manifest,
    pending: list[int],
    *,
    jobs: int,
    scheduler: Scheduler | str | None,
    advance: Advance,
) -> Manifest:
    """Make shards in parallel and move each into its place. After an error, start no further shards."""
    # a random name, because a worker of a killed call may still be writing
    hidden = folder / _UNFINISHED / secrets.token_hex(4)
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
                temporary=hidden / shard.file,
            )

    try:
        make_folder(hidden)
        with closing(side_by_side(_make_shard, to_do(), jobs=jobs, scheduler=scheduler)) as outcomes:
            for outcome in outcomes:
                try:
                    shard = _finished_shard(outcome)
                    outcome.job.temporary.replace(folder / shard.file)
                    manifest = manifest.with_shard(outcome.job.number, shard)
                    manifest.save(folder)
                except OSError as error:
                    path = folder / outcome.job.shard.file
                    failures.append(
                        DataError(
                            f"cannot write {path}: {error.strerror or error}; solve this, and run the same command "
                            "again to continue"
                        )
                    )
                except DigitforgeError as error:
                    failures.append(error)
                else:
                    advance(shard.n)
    finally:
        shutil.rmtree(folder / _UNFINISHED, ignore_errors=True)
    if failures:
        raise failures[0]
    return manifest


def _make_shard(job: _Job) -> _Outcome:
    """Write one shard. This runs in a worker. It returns errors instead of raising them, to keep the other shards."""
    plan, shard = job.plan, job.shard
    try:
        with job.client as client, WRITERS[plan.format](job.temporary, shard.n) as add:
            client.wait_ready(_OUTAGE_S)  # the server may restart between two shards
            for batch in digits_of(client, plan, shard, generator_id=job.generator_id):
                add(batch)
        shard = replace(shard, bytes=job.temporary.stat().st_size, sha256=checksum(job.temporary))
    except DigitforgeError as error:
        return _Outcome(job=job, shard=None, error=error)
    return _Outcome(job=job, shard=shard)


def _finished_shard(outcome: _Outcome) -> Shard:
    """Return the finished shard if this process can see its file. Raise the worker's error, if any."""
    if outcome.error is not None:
        raise outcome.error
    assert outcome.shard is not None
    temporary = outcome.job.temporary
    if not temporary.is_file() or temporary.stat().st_size != outcome.shard.bytes:
        raise DataError(
            f"a worker wrote {temporary}, but this process cannot see the file; all workers must share the folder "
            "under the same path"
        )
    return outcome.shard


def digits_of(client: DigitClient, plan: Plan, shard: Shard, *, generator_id: str) -> Iterator[Batch]:
    """Request a shard's digits, batch by batch.

    Raises:
        GeneratorChangedError: the server has another generator than *generator_id*.
        ServerError: the server could not answer; the subclass says why.
    """
    for batch in client.stream(shard.n, batch_size=_BATCH_ROWS, **plan.sample_options(shard)):
        if batch.generator_id != generator_id:
            raise _changed(generator_id, batch.generator_id)
        yield batch


def checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _load_or_create(client: DigitClient, folder: Path, plan: Plan) -> Manifest:
    """Load the folder's manifest, or create a new one."""
    generator = client.generator()
    if (folder / NAME).exists():
        manifest = Manifest.load(folder)
        differing = [name for name in Plan.__dataclass_fields__ if getattr(manifest.plan, name) != getattr(plan, name)]
        if differing:
            stored = ", ".join(f"{name} {getattr(manifest.plan, name)}" for name in differing)
            requested = ", ".join(f"{name} {getattr(plan, name)}" for name in differing)
            raise DataError(
                f"{folder} holds another data set: it has {stored}, but you requested {requested}; name another "
                "folder, or leave out these options to continue the data set"
            )
        if manifest.generator_id != generator.generator_id:
            raise _changed(manifest.generator_id, generator.generator_id)
        return manifest
    # A process that was killed while it wrote the first manifest leaves a temporary file, which `save` removes.
    if any(each.name != _LOCK and not each.match(f".{NAME}.*.tmp") for each in folder.iterdir()):
        raise DataError(
            f"{folder} is not empty and does not hold a data set of `digitforge generate`; name a new folder"
        )
    if plan.label is not None:
        generator.class_numbers(plan.label)
    plan.check_distribution(generator.latent_distribution)
    manifest = Manifest.new(plan, generator.card)
    manifest.save(folder)
    return manifest


def _is_complete(folder: Path, shard: Shard) -> bool:
    """Whether a shard is finished and its file has the right size. ``digitforge verify`` also checks the content."""
    try:
        return shard.finished and (folder / shard.file).stat().st_size == shard.bytes
    except OSError:
        return False


def _changed(first: str, now: str) -> GeneratorChangedError:
    return GeneratorChangedError(
        f"the data set was started with generator {first}, but the server has generator {now}; serve generator "
        f"{first}, or start another data set in a new folder"
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Create the folder if needed, and lock it. The lock ends with the process, even if the process is killed."""
    with needs_extra("generate", "`digitforge generate`"):
        from filelock import FileLock, Timeout
    existed = folder.exists()
    make_folder(folder)
    if not os.access(folder, os.W_OK):
        raise DataError(f"cannot write into {folder}; choose a folder that you may write to")
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DataError(f"another `digitforge generate` is running in {folder}; wait for it, or stop it") from error
    except OSError as error:
        raise DataError(f"cannot write into {folder}: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()
        if not (folder / NAME).exists():  # no data set was started
            (folder / _LOCK).unlink(missing_ok=True)
            if not existed:
                with suppress(OSError):
                    folder.rmdir()
