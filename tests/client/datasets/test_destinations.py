"""Writers to links, named pipes, devices and open files."""

from __future__ import annotations

import io
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from written import batch, write

from digitforge_client import DataError
from digitforge_client.common.files import new_folder, open_descriptor, replacing
from digitforge_client.datasets.manifest import FORMATS
from digitforge_client.datasets.readers import read


def test_a_link_stays_and_the_file_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    file, near, far = tmp_path / "folder" / "d.npz", tmp_path / "near.npz", tmp_path / "folder" / "far.npz"
    near.symlink_to("folder/far.npz")  # relative to the link's folder
    far.symlink_to("d.npz")
    for n in (5, 7):  # the links are broken at first
        write("npz", near, batch(n))
        with np.load(near) as archive:
            assert len(archive["y"]) == n
        assert near.is_symlink()
        assert far.is_symlink()
        assert not file.is_symlink()
    with pytest.raises(RuntimeError), replacing(near):
        raise RuntimeError
    with np.load(file) as archive:
        assert len(archive["y"]) == 7
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["d.npz", "far.npz", "folder", "near.npz"]


def test_links_without_a_valid_target_are_rejected_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("missing/d.npz")
    (tmp_path / "folder").mkdir()
    (tmp_path / "to-folder").symlink_to("folder")
    for name in ("loop", "nowhere", "to-folder"):
        with pytest.raises(DataError, match=f"cannot write .*{name}"), replacing(tmp_path / name):
            pytest.fail("began to write")
        with pytest.raises(DataError, match=f"cannot write the folder .*{name}"), new_folder(tmp_path / name):
            pytest.fail("began to write")
    assert len(list(tmp_path.rglob("*"))) == 4


def test_an_existing_file_keeps_its_permissions_and_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "d.npz"
    file.touch()
    root = os.geteuid() == 0
    if root:
        os.chown(file, 12345, 23456)
    for mode in (0o600, 0o664, 0o444):
        file.chmod(mode)
        write("npz", file, batch(3))
        assert stat.S_IMODE(file.stat().st_mode) == mode
        assert np.load(file)["y"].tolist() == [0, 1, 2]
    if root:
        assert (file.stat().st_uid, file.stat().st_gid) == (12345, 23456)


def test_a_private_file_stays_private_while_it_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "d.npz"
    file.touch(0o600)
    with replacing(file) as open_file:
        open_file.write(b"secret")
        assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_another_hard_link_to_a_replaced_file_keeps_the_old_content(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"old")
    (tmp_path / "d.npz").hardlink_to(tmp_path / "other")
    write("npz", tmp_path / "d.npz", batch(3))
    assert (tmp_path / "other").read_bytes() == b"old"


FILES = ["npz", "png", "npy", "tfrecord", "parquet"]


@pytest.mark.parametrize("form", FILES)
def test_a_named_pipe_is_written_and_not_replaced(tmp_path: Path, form: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    write(form, tmp_path / "file", batch(3000))
    with (tmp_path / "received").open("wb") as file:
        reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=file)
    try:
        write(form, tmp_path / "pipe", batch(3000))
        assert reader.wait(60) == 0
    finally:
        reader.kill()
        reader.wait()
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "pipe", "received"]
    if form in FORMATS:
        one, other = (read(tmp_path / name, form) for name in ("file", "received"))
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.seeds, other.seeds)
    else:
        assert (tmp_path / "received").read_bytes() == (tmp_path / "file").read_bytes()


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("link", [False, True])
def test_a_device_is_written_and_not_replaced(tmp_path: Path, form: str, link: bool) -> None:
    device = path = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))  # like /dev/null, which a test must not put at risk
        device.write_bytes(b"")
    except PermissionError:
        pytest.skip("only root may make a device, and not everywhere")
    if link:
        path = tmp_path / "link"
        path.symlink_to("null")
    write(form, path, batch(3000))
    assert device.is_char_device()
    assert path.is_symlink() == link
    assert len(list(tmp_path.iterdir())) == 1 + link


def test_a_pipe_without_a_reader_is_a_single_error(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with pytest.raises(DataError, match="Broken pipe"):
        write("npz", Path(f"/dev/fd/{write_end}"), batch(3000))
    os.close(write_end)


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("mode", ["wb", "ab"])
def test_an_open_file_is_written_from_its_current_position(tmp_path: Path, form: str, mode: str) -> None:
    write(form, tmp_path / "alone", batch(30))
    with (tmp_path / "file").open(mode) as file:
        file.write(b"before ")
        file.flush()
        (tmp_path / "link").symlink_to(f"/dev/fd/{file.fileno()}")
        for name in (f"/dev/fd/{file.fileno()}", f"/proc/self/fd/{file.fileno()}", tmp_path / "link"):
            assert open_descriptor(Path(name)) == file.fileno()
            write(form, Path(name), batch(30))
        file.write(b" after")
    content, alone = (tmp_path / "file").read_bytes(), (tmp_path / "alone").stat().st_size
    assert content.startswith(b"before ")
    assert content.endswith(b" after")
    assert len(content) >= 13 + 3 * alone
    (tmp_path / "last").write_bytes(content[:-6][-(len(content) - 13) // 3 :])
    if form in FORMATS:
        np.testing.assert_array_equal(read(tmp_path / "last", form).images, batch(30).images)


def test_other_paths_name_no_open_file(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "1", tmp_path / "loop", Path("/dev/null"), Path("/dev/fd"), Path("1")):
        assert open_descriptor(path) is None
    assert open_descriptor(Path("/dev/stdout")) == 1


# --- processes that were killed while they wrote

KILLED = """
import os, signal, sys
from pathlib import Path
from digitforge_client.common.files import new_folder, replacing
with (new_folder if sys.argv[2] == "folder" else replacing)(Path(sys.argv[1])) as target:
    if sys.argv[2] == "folder":
        (target / "part").write_text("incomplete")
    else:
        target.write(b"incomplete")
    print("writes", flush=True)
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _writes(path: Path, what: str) -> subprocess.Popen[str]:
    """A process that has begun to write, and is killed when its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, path, what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writes\n"
    return process


@pytest.mark.parametrize("what", ["file", "folder"])
def test_the_next_writer_removes_what_a_killed_one_left_and_nothing_else(tmp_path: Path, what: str) -> None:
    out, other = tmp_path / "d[1]*.npz", tmp_path / "d.npz"
    for path in (out, out, other):
        with _writes(path, what) as process:
            process.communicate()
        assert process.returncode == -signal.SIGKILL
    (tmp_path / f".{out.name}.mine.tmp").touch()
    with _writes(out, what) as running:
        assert len(list(tmp_path.iterdir())) == 3  # of `other`, of the test and of the running process
        write("files" if what == "folder" else "npz", out, batch(3))
        assert len(list(tmp_path.iterdir())) == 4
        running.communicate()
    if what == "folder":
        shutil.rmtree(out)
    write("files" if what == "folder" else "npz", out, batch(3))
    write("files" if what == "folder" else "npz", other, batch(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".{out.name}.mine.tmp", "d.npz", out.name]


def test_the_longest_name_of_a_file_can_be_written(tmp_path: Path) -> None:
    for name in ("d" * 251 + ".npz", "é" * 125 + ".npz", "猫" * 83 + ".npz"):
        write("npz", tmp_path / name, batch(3))
        assert np.load(tmp_path / name)["y"].tolist() == [0, 1, 2]


def test_a_folder_that_cannot_be_listed_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "drop").mkdir()
    (tmp_path / "drop").chmod(0o333)
    write("npz", tmp_path / "drop" / "d.npz", batch(3))
    (tmp_path / "drop").chmod(0o700)
    assert [path.name for path in (tmp_path / "drop").iterdir()] == ["d.npz"]


def test_a_mounted_file_gets_the_content(tmp_path: Path) -> None:
    """A container may mount a single file. The system refuses to replace it."""
    source, file = tmp_path / "source", tmp_path / "d.npz"
    source.write_bytes(b"old")
    file.touch()
    program = "import sys; from pathlib import Path; from written import batch, write; "
    program += "write('npz', Path(sys.argv[1]), batch(3))"
    command = ["unshare", "--mount", "sh", "-c", 'mount --bind "$1" "$2" || exit 77; shift 2; exec "$@"', "sh"]
    command += [str(source), str(file), sys.executable, "-c", program, str(file)]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("this user may not mount")
    assert done.returncode == 0, done.stderr
    assert np.load(io.BytesIO(source.read_bytes()))["y"].tolist() == [0, 1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.npz", "source"]
