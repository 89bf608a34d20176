"""The command that adds an extra fits the installation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from digitforge_client.common.extras import install_command

CLONE: Any = object()


def installed(path: Path, source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make *path* look like the installation of digitforge that Python finds first."""
    info = path / "digitforge-9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: digitforge\nVersion: 9\n")
    if source is not None:
        (info / "direct_url.json").write_text(source if isinstance(source, str) else json.dumps(source))
    monkeypatch.syspath_prepend(str(path))


@pytest.mark.parametrize(
    ("source", "command"),
    [
        (None, "pip install 'digitforge[serving]'"),
        ("not JSON", "pip install 'digitforge[serving]'"),
        (
            {"url": "file:///no/such/clone", "dir_info": {}},
            "pip install '.[serving]' in a clone of digitforge's repository",
        ),
        (
            {"url": "file:///tmp/dist/digitforge-9-py3-none-any.whl", "archive_info": {}},
            "pip install 'digitforge[serving] @ file:///tmp/dist/digitforge-9-py3-none-any.whl'",
        ),
        (
            {"url": "https://example.org/digitforge", "vcs_info": {"vcs": "git", "commit_id": "5a5a"}},
            "pip install 'digitforge[serving] @ git+https://example.org/digitforge@5a5a'",
        ),
    ],
)
def test_the_command_installs_from_the_source_of_the_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Any, command: str
) -> None:
    installed(tmp_path, source, monkeypatch)
    assert install_command("serving") == command


@pytest.mark.parametrize(("editable", "option"), [(True, "--editable "), (False, "")])
def test_a_clone_is_installed_again_from_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, editable: bool, option: str
) -> None:
    clone = tmp_path / "my clone"
    clone.mkdir()
    (clone / "pyproject.toml").touch()
    installed(tmp_path, {"url": clone.as_uri(), "dir_info": {"editable": editable}}, monkeypatch)
    assert install_command("serving,training") == f"pip install {option}'{clone}[serving,training]'"
