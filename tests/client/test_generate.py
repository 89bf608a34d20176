"""Very large data sets: every digit once, nothing finished ever lost, and what is damaged is noticed."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from digitforge_client import (
    DataError,
    DigitClient,
    GeneratorChangedError,
    InvalidInputError,
)
from digitforge_client.contract import ROWS_PER_SEED, SEEDS
from digitforge_client.generate import generate
from digitforge_client.manifest import FORMATS, NAME, Manifest, Plan
from digitforge_client.readers import read
from digitforge_client.testing import FakeTransport
from digitforge_client.verify import compare, problem_of, spread

pytest.importorskip("joblib")
PLAN = Plan(n=2500, seed=6, start=70, rows_per_shard=600)
CARD = {"generator_id": "fa4efa4efa4efa4e", "class_names": [], "image_shape": [28, 28, 1]}


@pytest.fixture
def client() -> DigitClient:
    return DigitClient(transports=[FakeTransport()])


def run(server: Any, command: str, *arguments: str | Path, code: str = "") -> subprocess.CompletedProcess[str]:
    program = f"{code}\nfrom digitforge_client.command import main; main()"
    words = [sys.executable, "-c", program, command, "--server", server.target, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """The error of a command that failed with one line, and printed no result."""
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    return result.stderr


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()} - {".lock"}


def assert_whole(folder: Path, manifest: Manifest, formula: Callable[..., np.ndarray]) -> None:
    """The folder holds every digit of the plan once, in order, as the server's formula has it, and nothing else."""
    assert names(folder) == {NAME} | {shard.file for shard in manifest.shards}
    parts = [read(folder / shard.file, manifest.plan.format) for shard in manifest.shards]
    seeds = np.concatenate([part.seeds for part in parts])
    first = manifest.plan.seed * ROWS_PER_SEED + manifest.plan.start
    np.testing.assert_array_equal(seeds, first + np.arange(manifest.plan.n))
    labels = np.concatenate([part.labels for part in parts])
    images = np.concatenate([part.images for part in parts])
    np.testing.assert_array_equal(images, formula(labels, seeds)[..., 0])
    for shard in manifest.shards:
        assert shard.sha256 == hashlib.sha256((folder / shard.file).read_bytes()).hexdigest()


# --- plans and manifests


plans = st.builds(
    dict,
    n=st.integers(1, 10**10),
    seed=st.integers(0, SEEDS - 1),
    start=st.integers(0, ROWS_PER_SEED),
    rows_per_shard=st.integers(1, 1_000_000),
    label=st.none() | st.integers(0, 9),
    truncation=st.none() | st.floats(0.1, 3),
    format=st.sampled_from(FORMATS),
)


@given(plans)
def test_two_shards_never_share_an_address_and_none_is_left_out(fields: dict[str, Any]) -> None:
    try:
        plan = Plan(**fields)
    except InvalidInputError:
        assert fields["start"] + fields["n"] > ROWS_PER_SEED or -(-fields["n"] // fields["rows_per_shard"]) > 10_000, (
            fields
        )
        assume(False)
    shards = plan.shards()
    assert len({shard.file for shard in shards}) == len(shards)
    assert all(one.start + one.n == other.start for one, other in itertools.pairwise(shards))
    assert (shards[0].start, shards[-1].start + shards[-1].n) == (plan.start, plan.start + plan.n)
    assert all(0 < shard.n <= plan.rows_per_shard for shard in shards)


@given(plans.filter(lambda fields: fields["n"] <= 50 * fields["rows_per_shard"]), st.sets(st.integers(0, 49)))
def test_a_manifest_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any], finished: set[int]
) -> None:
    assume(fields["start"] + fields["n"] <= ROWS_PER_SEED)
    folder = tmp_path_factory.mktemp("manifest")
    manifest = Manifest.new(Plan(**fields), CARD)
    for number in finished & set(range(len(manifest.shards))):
        manifest = manifest.with_shard(number, replace(manifest.shards[number], bytes=number, sha256="0" * 64))
    manifest.save(folder)
    assert Manifest.load(folder) == manifest
    described = json.loads((folder / NAME).read_text())["shards"]
    pairs = [each["row_seeds"] for each in described]
    assert all(one[1] + 1 == other[0] for one, other in itertools.pairwise(pairs))
    assert pairs[0][0] == fields["seed"] * 2**32 + fields["start"]


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.pop("seed"),
        lambda fields: fields.update(n=0),
        lambda fields: fields.update(n="many"),
        lambda fields: fields.update(generator_id="f" * 16),
        lambda fields: fields.update(manifest_version=2),
        lambda fields: fields.update(start=71),
        lambda fields: fields["shards"].pop(),
        lambda fields: fields["shards"].append(fields["shards"][0]),
        lambda fields: fields["shards"][1].update(start=70),
        lambda fields: fields["shards"][1].update(file="../elsewhere"),
        lambda fields: fields["shards"][1].pop("sha256"),
        lambda fields: fields.update(shards=None),
        lambda fields: fields.update(card=[]),
    ],
)
def test_a_manifest_that_was_changed_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    Manifest.new(PLAN, CARD).save(tmp_path)
    fields = json.loads((tmp_path / NAME).read_text())
    change(fields)
    (tmp_path / NAME).write_text(json.dumps(fields))
    with pytest.raises(DataError, match=NAME):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"no JSON", b"\xff\xfe"])
def test_something_else_is_no_manifest(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(DataError, match="generate"):
        Manifest.load(tmp_path)
    (tmp_path / NAME).write_bytes(text)
    with pytest.raises(DataError, match=NAME):
        Manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"n": 0}, "n is 0"),
        ({"n": 10, "start": -1}, "start is -1"),
        ({"n": 10, "seed": 2**21}, "seed is"),
        ({"n": 2**32, "start": 1}, "use another seed"),
        ({"n": 10, "format": "idx"}, "npz, tfrecord, parquet"),
        ({"n": 10, "rows_per_shard": 0}, "rows_per_shard"),
        ({"n": 10, "rows_per_shard": 1_000_001}, "held in memory"),
        ({"n": 10_001, "rows_per_shard": 1}, "10001 shards"),
        ({"n": 10, "truncation": -1}, "truncation"),
        ({"n": 10, "label": "seven"}, "label"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        Plan(**({"seed": 0} | fields))


# --- making


@pytest.mark.parametrize("form", FORMATS)
def test_shards_of_every_format_hold_the_digits_of_a_sample(tmp_path: Path, client: DigitClient, form: str) -> None:
    pytest.importorskip("pyarrow")
    plan = replace(PLAN, format=form)
    advanced: list[int] = []
    manifest = generate(client, tmp_path / "set", plan, jobs=1, advance=advanced.append)
    whole = client.sample(2500, seed=6, start=70)
    parts = [read(tmp_path / "set" / shard.file, form) for shard in manifest.shards]
    assert [len(part) for part in parts] == [600, 600, 600, 600, 100] == advanced
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), whole.images)
    np.testing.assert_array_equal(np.concatenate([part.labels for part in parts]), whole.labels)
    np.testing.assert_array_equal(np.concatenate([part.seeds for part in parts]), whole.seeds)
    assert {part.generator_id for part in parts} == {whole.generator_id}
    assert Manifest.load(tmp_path / "set") == manifest


def test_a_class_and_a_truncation_hold_for_all_shards(tmp_path: Path, client: DigitClient) -> None:
    manifest = generate(client, tmp_path, replace(PLAN, label=7, truncation=0.4), jobs=1)
    last = read(tmp_path / manifest.shards[-1].file, "npz")
    assert set(last.labels.tolist()) == {7}
    np.testing.assert_array_equal(last.images, client.sample(100, labels=7, seed=6, start=2470, truncation=0.4).images)
    assert all(compare(client, tmp_path, manifest, shard).tolerable for shard in manifest.shards)


def test_processes_side_by_side_write_what_one_writes(server: Any, tmp_path: Path, formula: Any) -> None:
    for jobs in ("1", "2"):
        arguments = ("--n", 5000, "--rows-per-shard", 700, "--seed", 1, "--jobs", jobs, "--json")
        result = run(server, "generate", tmp_path / jobs, *arguments)
        assert result.returncode == 0, result.stderr
        report = json.loads(result.stdout)
        assert (report["n"], report["shards"], report["generator_id"]) == (5000, 8, server.generator_id)
        assert_whole(tmp_path / jobs, Manifest.load(tmp_path / jobs), formula)
    for file in names(tmp_path / "1"):
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes()
    checked = run(server, "verify", tmp_path / "2", "--regenerate", 2)
    assert checked.returncode == 0, checked.stderr
    assert "8 shards with 5000 digits are as their checksums say; 2 of them hold" in checked.stdout


def test_a_dask_cluster_writes_the_same(server: Any, tmp_path: Path, scheduler: str, formula: Any) -> None:
    arguments = ("--n", 5000, "--rows-per-shard", 700, "--seed", 1)
    result = run(server, "generate", tmp_path / "set", *arguments, "--scheduler", scheduler)
    assert result.returncode == 0, result.stderr
    assert_whole(tmp_path / "set", Manifest.load(tmp_path / "set"), formula)
    server.failures = [(grpc.StatusCode.INTERNAL, "oops")] * 100
    result = run(server, "generate", tmp_path / "b", *arguments, "--scheduler", scheduler)
    assert (result.returncode, "oops" in one_line(result)) == (3, True)


# --- interrupted, and continued


@pytest.fixture
def gate(server: Any) -> Iterator[threading.Event]:
    """Until it is set, the server answers requests for the first three of `begin`'s shards only."""
    event = threading.Event()

    def hold(request: Any) -> None:
        seeds = np.frombuffer(request.inputs["seeds"].tensor_content, dtype="<i8")
        if seeds[0] % ROWS_PER_SEED >= 1500:
            event.wait(60)

    server.before_answer = hold
    yield event
    event.set()


def begin(server: Any, folder: Path, *arguments: Any) -> subprocess.Popen[str]:
    """A command under way, of whose eight shards three are finished."""
    # a shell that runs the tests in the background makes its children deaf to Ctrl-C
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += "from digitforge_client.command import main; main()"
    words = [sys.executable, "-c", program, "generate", "--server", server.target, str(folder)]
    words += ["--n", "4000", "--rows-per-shard", "500", "--seed", "2", *map(str, arguments)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while process.poll() is None:
        if (folder / NAME).exists() and Manifest.load(folder).finished == 3:
            break
        time.sleep(0.01)
    return process


def finished(folder: Path) -> dict[str, int]:
    """When each finished shard was written; all of them are whole."""
    manifest = Manifest.load(folder)
    done = [shard for shard in manifest.shards if shard.finished]
    assert [problem_of(folder, shard) for shard in done] == [None] * len(done)
    return {shard.file: (folder / shard.file).stat().st_mtime_ns for shard in done}


@pytest.mark.parametrize("jobs", [1, 2])
def test_after_kill_9_nothing_that_was_finished_is_lost(
    server: Any, gate: threading.Event, tmp_path: Path, formula: Any, jobs: int
) -> None:
    with begin(server, tmp_path / "set", "--jobs", jobs) as process:
        os.killpg(process.pid, signal.SIGKILL)
    gate.set()
    before = finished(tmp_path / "set")
    assert len(before) == 3
    asked = len(server.requests)
    result = run(server, "generate", tmp_path / "set", "--json")  # the rest stands in the manifest
    assert result.returncode == 0, result.stderr
    assert before.items() <= finished(tmp_path / "set").items()
    assert len(server.requests) - asked == 2 * (8 - len(before))  # 500 rows in requests of 256: only what was missing
    assert_whole(tmp_path / "set", Manifest.load(tmp_path / "set"), formula)


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_ends_with_130_and_keeps_what_is_finished(
    server: Any, gate: threading.Event, tmp_path: Path, jobs: int
) -> None:
    with begin(server, tmp_path / "set", "--jobs", jobs) as process:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of them
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr.strip()) == (130, "", "digitforge: interrupted")
    before = finished(tmp_path / "set")
    assert names(tmp_path / "set") == {NAME, *before}
    checked = run(server, "verify", tmp_path / "set")
    assert checked.returncode == 4
    assert "3 of 8 shards are finished" in one_line(checked)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are found in /proc")
def test_a_worker_that_is_killed_is_told_of_and_costs_only_its_shard(
    server: Any, gate: threading.Event, tmp_path: Path
) -> None:
    with begin(server, tmp_path / "set", "--jobs", 2) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            if b"LokyProcess" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (1, "")
    assert "was killed" in stderr.strip().splitlines()[-1]
    assert len(finished(tmp_path / "set")) == 3


def test_a_server_that_fails_costs_only_what_was_not_finished(server: Any, tmp_path: Path, formula: Any) -> None:
    def fail_at_the_fifth_shard(request: Any) -> None:
        if len(server.requests) == 9:
            server.failures.append((grpc.StatusCode.INTERNAL, "oops"))

    server.before_answer = fail_at_the_fifth_shard
    arguments = ("--n", 4000, "--rows-per-shard", 500, "--seed", 2, "--jobs", 1)
    result = run(server, "generate", tmp_path / "set", *arguments)
    assert (result.returncode, "oops" in one_line(result)) == (3, True)
    before = finished(tmp_path / "set")
    assert len(before) in (4, 5)
    assert names(tmp_path / "set") == {NAME, *before}
    assert run(server, "generate", tmp_path / "set", *arguments).returncode == 0
    assert before.items() <= finished(tmp_path / "set").items()
    assert_whole(tmp_path / "set", Manifest.load(tmp_path / "set"), formula)


def test_a_finished_data_set_is_left_as_it_is(server: Any, tmp_path: Path) -> None:
    arguments = ("--n", 1000, "--rows-per-shard", 500, "--seed", 2, "--jobs", 1)
    run(server, "generate", tmp_path, *arguments)
    before, asked = finished(tmp_path), len(server.requests)
    assert run(server, "generate", tmp_path, *arguments).returncode == 0
    assert (finished(tmp_path), len(server.requests)) == (before, asked)


def test_another_plan_or_generator_never_continues_a_data_set(tmp_path: Path, client: DigitClient) -> None:
    generate(client, tmp_path, PLAN, jobs=1)
    before = finished(tmp_path)
    for other in (
        replace(PLAN, n=2501),
        replace(PLAN, seed=7),
        replace(PLAN, label=1),
        replace(PLAN, format="parquet"),
    ):
        with pytest.raises(DataError, match="holds another data set: "):
            generate(client, tmp_path, other, jobs=1)
    stranger = DigitClient(transports=[FakeTransport(generator_id="0" * 16)])
    with pytest.raises(GeneratorChangedError, match="begun with generator fa4efa4efa4efa4e"):
        generate(stranger, tmp_path, PLAN, jobs=1)
    assert finished(tmp_path) == before


def test_a_generator_that_changes_between_two_shards_ends_the_work(tmp_path: Path) -> None:
    fake = FakeTransport()

    def change(_: int) -> None:
        fake.card["generator_id"] = "0" * 16

    with pytest.raises(GeneratorChangedError, match="begun with generator fa4efa4efa4efa4e, but the server has 0000"):
        generate(DigitClient(transports=[fake]), tmp_path, PLAN, jobs=1, advance=change)
    assert 1 <= len(finished(tmp_path)) < 5


def test_two_commands_never_write_one_data_set(server: Any, gate: threading.Event, tmp_path: Path) -> None:
    with begin(server, tmp_path / "set", "--jobs", 1) as process:
        second = run(server, "generate", tmp_path / "set")
        gate.set()
        stdout, _ = process.communicate(timeout=60)
    assert (second.returncode, "another `digitforge generate` is at work" in one_line(second)) == (4, True)
    assert process.returncode == 0
    assert "in 8 shards" in stdout


# --- refused


def test_a_folder_with_something_else_is_never_touched(tmp_path: Path, client: DigitClient) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(DataError, match="holds something else"):
        generate(client, tmp_path, PLAN, jobs=1)
    assert {each.name for each in tmp_path.iterdir()} == {"letters.txt"}
    with pytest.raises(DataError, match="name another place"):
        generate(client, tmp_path / "letters.txt" / "set", PLAN, jobs=1)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("--n", 10, "--label", "A"), 2, "no class 'A'"),
        (("--n", 10, "--truncation", 0), 2, "truncation is 0"),
        (("--n", 10, "--jobs", 0), 2, "--jobs is 0"),
        (("--n", 0), 2, "n is 0"),
        ((), 2, "say how many digits with --n"),
        (("--n", 10, "--model", "letters"), 3, "no model 'letters'"),
    ],
)
def test_what_cannot_be_done_leaves_no_folder(
    server: Any, tmp_path: Path, arguments: tuple[Any, ...], status: int, says: str
) -> None:
    result = run(server, "generate", tmp_path / "set", *arguments)
    assert (result.returncode, says in one_line(result)) == (status, True), result.stderr
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("library", "arguments", "extra"),
    [("joblib", (), "generate"), ("filelock", (), "generate"), ("pyarrow", ("--format", "parquet"), "parquet")],
)
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    server: Any, tmp_path: Path, library: str, arguments: tuple[str, ...], extra: str
) -> None:
    blocked = f"import sys; sys.modules[{library!r}] = None"
    result = run(server, "generate", tmp_path / "set", "--n", 10, *arguments, code=blocked)
    assert result.returncode == 2
    assert f"pip install 'digitforge[{extra}]'" in one_line(result)


def test_dask_that_is_not_installed_is_named_with_its_extra(server: Any, tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['distributed'] = None"
    result = run(server, "generate", tmp_path / "s", "--n", 10, "--scheduler", "tcp://127.0.0.1:1", code=blocked)
    assert (result.returncode, "pip install 'digitforge[dask]'" in one_line(result)) == (2, True)


# --- verified


def test_what_happened_to_files_is_found_and_mended(server: Any, tmp_path: Path, formula: Any) -> None:
    arguments = ("--n", 2000, "--rows-per-shard", 300, "--seed", 2, "--jobs", 1)
    assert run(server, "generate", tmp_path, *arguments).returncode == 0
    files = [tmp_path / shard.file for shard in Manifest.load(tmp_path).shards]
    files[0].unlink()
    files[2].write_bytes(files[2].read_bytes()[:-1])
    content = bytearray(files[4].read_bytes())
    content[len(content) // 2] ^= 1
    files[4].write_bytes(content)
    result = run(server, "verify", tmp_path, "--json")
    assert result.returncode == 4
    problems = json.loads(result.stdout)["problems"]
    assert [problem.split()[0] for problem in problems] == [files[number].name for number in (0, 2, 4)]
    assert ["missing" in problems[0], "bytes instead of" in problems[1], "checksum" in problems[2]] == [True] * 3
    assert "remove such files and run `digitforge generate" in one_line(run(server, "verify", tmp_path))
    files[4].unlink()
    assert run(server, "generate", tmp_path).returncode == 0  # a missing file, or one of another size, is made anew
    assert run(server, "verify", tmp_path).returncode == 0
    assert_whole(tmp_path, Manifest.load(tmp_path), formula)


def add(levels: int, pixels: int) -> Callable[[Any], Any]:
    """Answers in which so many pixels differ by so many grey levels."""

    def mend(reply: Any) -> Any:
        images = np.frombuffer(reply.outputs["images"].tensor_content, dtype=np.uint8).copy()
        images[:pixels] += np.where(images[:pixels] < 128, levels, -levels).astype(np.uint8)
        reply.outputs["images"].tensor_content = images.tobytes()
        return reply

    return mend


def test_regenerated_digits_are_compared_within_the_tolerance(server: Any, tmp_path: Path) -> None:
    arguments = ("--n", 1000, "--rows-per-shard", 256, "--seed", 2, "--jobs", 1)
    assert run(server, "generate", tmp_path, *arguments).returncode == 0
    pixels = 256 * 784
    for levels, changed, status in ((1, pixels // 1001, 0), (1, pixels // 990, 4), (2, 1, 4)):
        server.mend = add(levels, changed)
        result = run(server, "verify", tmp_path, "--regenerate", 1, "--json")
        assert result.returncode == status, (levels, changed, result.stderr)
        (compared,) = json.loads(result.stdout)["regenerated"]
        assert (compared["pixels"], compared["differing"], compared["largest"]) == (pixels, changed, levels)
    assert "holds other digits than the server gives" in result.stderr
    server.mend = lambda reply: reply
    server.generator_id = "f" * 16
    result = run(server, "verify", tmp_path, "--regenerate", 1)
    assert (result.returncode, "begun with generator 0123456789abcdef" in one_line(result)) == (3, True)


def test_a_file_with_other_addresses_is_noticed(tmp_path: Path, client: DigitClient) -> None:
    manifest = generate(client, tmp_path, PLAN, jobs=1)
    files = [tmp_path / shard.file for shard in manifest.shards]
    files[0].write_bytes(files[1].read_bytes())
    with pytest.raises(DataError, match="addresses differ"):
        compare(client, tmp_path, manifest, manifest.shards[0])
    files[0].write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"cannot read .*shard-00000"):
        compare(client, tmp_path, manifest, manifest.shards[0])


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data())
def test_a_damaged_file_is_an_error_of_the_library(
    tmp_path_factory: pytest.TempPathFactory, form: str, data: st.DataObject
) -> None:
    pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("damaged")
    plan = replace(PLAN, n=3, format=form)
    client = DigitClient(transports=[FakeTransport(image_shape=(4, 4, 1))])
    manifest = generate(client, folder, plan, jobs=1)
    path = folder / manifest.shards[0].file
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    assert problem_of(folder, manifest.shards[0]) is not None
    with contextlib.suppress(DataError):  # some bytes mean nothing
        compare(client, folder, manifest, manifest.shards[0])


def test_shards_to_regenerate_are_evenly_spread() -> None:
    shards = Plan(n=1000, seed=0, rows_per_shard=10).shards()
    assert [shards.index(shard) for shard in spread(shards, 4)] == [0, 33, 66, 99]
    assert spread(shards, 1) == shards[:1]
    assert spread(shards, 1000) == shards
