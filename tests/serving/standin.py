"""Build a container image that replaces TensorFlow Serving's in tests. It runs the embedded server.

The image can be built offline from files on this machine: the Python interpreter, the packages that serving needs, bash
and the programs that the health check uses, and all shared libraries that these load.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

import digitforge_client
import digitforge_serving

SITE: Final = "/opt/digitforge"
PROGRAMS: Final = ("bash", "grep", "cat", "touch")
#: The program `tensorflow_model_server`. Like TensorFlow Serving, it listens on all interfaces.
SERVER: Final = """#!/bin/bash
export PYTHONPATH={site} HOME=/tmp
exec {python} -m digitforge serve --host=0.0.0.0 "$@"
"""
#: Files that the server does not need.
_LEFT_OUT: Final = re.compile(r"/(tensorflow/include|libclang|python3\.\d+/(site-packages|test|idlelib|tkinter))/")


def build(tag: str) -> None:
    """Build the image with the given tag.

    Raises:
        subprocess.CalledProcessError: the engine cannot import the image.
    """
    command = ["docker", "import", "--change", "ENV PATH=/usr/local/bin:/usr/bin:/bin", "-", tag]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as engine:
        assert engine.stdin is not None
        with tarfile.open(fileobj=engine.stdin, mode="w|") as archive:
            _fill(archive)
        engine.stdin.close()
    if engine.returncode:
        raise subprocess.CalledProcessError(engine.returncode, command)


def _fill(archive: tarfile.TarFile) -> None:
    python = os.path.realpath(sys.executable)
    stdlib = Path(sysconfig.get_path("stdlib"))
    files = {f"/usr/bin/{name}": Path(os.path.realpath(str(shutil.which(name)))) for name in PROGRAMS}
    files |= {python: Path(python)}
    files |= {str(path): path for path in stdlib.rglob("*")}
    files |= {f"{SITE}/{name}": path for path, name in _packages()}
    for package in (digitforge_client, digitforge_serving):
        folder = Path(str(package.__file__)).parent
        files |= {f"{SITE}/{path.relative_to(folder.parent)}": path for path in folder.rglob("*")}
    files = {name: path for name, path in files.items() if path.is_file() and not _LEFT_OUT.search(name)}
    binaries = [path for path in files.values() if ".so" in path.name or os.access(path, os.X_OK)]
    files |= {library: Path(os.path.realpath(library)) for library in _libraries(binaries)}
    for name, path in files.items():
        archive.add(path.resolve(), name, recursive=False)
    _write(archive, "/usr/local/bin/tensorflow_model_server", SERVER.format(site=SITE, python=python), mode=0o755)
    _write(archive, "/etc/passwd", "root:x:0:0:root:/tmp:/bin/bash\n")
    for name, member_type, target in (("/bin/bash", tarfile.SYMTYPE, "/usr/bin/bash"), ("/tmp", tarfile.DIRTYPE, "")):
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.mode = member_type, target, 0o1777
        archive.addfile(member)


def _write(archive: tarfile.TarFile, name: str, text: str, *, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(text.encode()), mode
    archive.addfile(member, io.BytesIO(text.encode()))


def _packages() -> Iterator[tuple[Path, str]]:
    """Files of all packages that `digitforge[serving]` requires: (path, name in the image)."""
    from packaging.requirements import Requirement

    seen: set[tuple[str, tuple[str, ...]]] = set()
    waiting: list[tuple[str, tuple[str, ...]]] = [("digitforge", ("serving",))]
    while waiting:
        name, extras = waiting.pop()
        if (name.lower(), extras) in seen:
            continue
        seen.add((name.lower(), extras))
        distribution = metadata.distribution(name)
        for text in distribution.requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in ("", *extras)):
                waiting.append((requirement.name, tuple(sorted(requirement.extras))))
        for file in distribution.files or []:
            source = Path(str(distribution.locate_file(file)))
            if ".." not in file.parts and file.suffix != ".pth":
                yield source, str(file)


def _libraries(binaries: Iterable[Path]) -> set[str]:
    """Paths of the shared libraries that the binaries load."""
    paths: set[str] = set()
    result = subprocess.run(
        ["ldd", *map(str, binaries)], capture_output=True, text=True, check=False
    )  # some files are not binaries
    for line in result.stdout.splitlines():
        found = re.search(r"(?:=> )?(/\S+) \(0x", line)
        if found and "site-packages" not in found[1]:
            paths.add(found[1])
    return paths
