"""`digitforge models promote --label` changes a label in the configuration, and a running server notices it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner
from serve_process import serving
from serving_toys import Stubs, connect, predict_request, wait_for

from digitforge_client.errors import DataError, DigitforgeError, InvalidInputError
from digitforge_serving import shipped_config
from digitforge_serving.cli.models import models
from digitforge_serving.config.options import read_model_config
from digitforge_serving.models.labels import move_label


@pytest.fixture
def versions(base_path: Path, other_version: Path) -> Path:
    """A model folder with versions 1, 2 and 3."""
    for number in (2, 3):
        shutil.copytree(other_version, base_path / str(number))
    return base_path


def config(base_path: Path, entries: str = "", name: str = "toy") -> str:
    policy = "model_version_policy { latest { num_versions: 2 } }"
    return (
        f'config {{ name: "{name}" base_path: "{base_path}" model_platform: "tensorflow" # 2\n{policy} {entries}\n}}\n'
    )


def write(folder: Path, *models: str) -> Path:
    file = folder / "models.config"
    file.write_text(f"# our models\nmodel_config_list {{\n{''.join(models)}}}\n")
    return file


def labels(file: Path) -> dict[str, dict[str, int]]:
    return {source.name: dict(source.labels) for source in read_model_config(file)}


def run(*arguments: str | int | Path) -> str:
    result = CliRunner().invoke(models, ["promote", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_running_server_answers_with_the_version_that_the_label_was_moved_to(versions: Path, tmp_path: Path) -> None:
    file = write(tmp_path, config(versions, 'version_labels { key: "stable" value: 2 }'))
    flags = [
        f"--model_config_file={file}",
        "--model_config_file_poll_wait_seconds=0.1",
        "--allow_version_labels_for_unavailable_models=true",
    ]

    def answering(stubs: Stubs, label: str) -> int | str:
        request = predict_request()
        request.model_spec.version_label = label
        try:
            return int(stubs.predict(request).model_spec.version.value)
        except grpc.RpcError as error:
            return str(error.details())

    with serving(tmp_path, *flags, "--port=0", "--json") as process:
        stubs = connect(json.loads(process.line())["grpc_target"])
        assert answering(stubs, "stable") == 2
        assert run(3, "--label", "stable", "--config", file) == f"stable is version 3 in {file}\n"
        wait_for(lambda: answering(stubs, "stable") == 3)
        assert answering(stubs, "canary") == "Unrecognized servable version label: canary"
        run(2, "--label", "canary", "--config", file)
        wait_for(lambda: answering(stubs, "canary") == 2)
        assert answering(stubs, "stable") == 3


@pytest.mark.parametrize(
    "entries",
    [
        'version_labels { key: "stable" value: 2 }',
        "version_labels{value:0x2,key:'stable'} # stable: 2",
        'version_labels { key: "canary" value: 2 } version_labels < key: "stable" value: 2 >',
        '# version_labels { key: "stable" value: 2 }\nversion_labels { key: "stable" value: 2 } # for 2 users',
        'version_labels { key: "canary" value: 2 }',
        'version_labels { key: "stable" }',
        "",
    ],
)
def test_only_the_label_changes_and_comments_stay(entries: str, versions: Path, tmp_path: Path) -> None:
    other = config(versions, 'version_labels { key: "stable" value: 2 }', "other")
    file = write(tmp_path, other, config(versions, entries), other.replace("other", "third"))
    file.chmod(0o640)
    before = file.read_text()
    expected = labels(file)
    expected["toy"]["stable"] = 3
    assert move_label(file, "stable", 3, model="toy")
    assert labels(file) == expected
    assert [line for line in before.splitlines() if line.startswith("#")] == [
        line for line in file.read_text().splitlines() if line.startswith("#")
    ]
    assert len(file.read_text().splitlines()) - len(before.splitlines()) in {0, 1}
    assert file.stat().st_mode & 0o777 == 0o640
    assert [path for path in tmp_path.iterdir() if path.is_file()] == [file]  # no temporary file is left


def test_the_shipped_configuration_gets_a_new_label_on_a_line_of_its_own(versions: Path, tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    shutil.copy(shipped_config() / "models.config", file)
    before = file.read_text().splitlines()
    run(3, "--label", "canary", "--config", file, "--to", versions)
    run(3, "--label", "stable", "--config", file, "--to", versions)
    after = file.read_text().splitlines()
    assert [line for line in after if line not in before] == [
        '    version_labels { key: "stable" value: 3 }',
        '    version_labels { key: "canary" value: 3 }',
    ]
    assert len(after) == len(before) + 1


def test_a_text_that_cannot_be_changed_in_one_place_is_written_again(versions: Path, tmp_path: Path) -> None:
    repeated = 'version_labels { key: "stable" value: 2 }'
    file = write(tmp_path, f"config: [{config(versions, repeated).removeprefix('config').rstrip()}]")
    text = file.read_text().replace("# 2\n", "").replace(repeated, "version_labels: [{ key: 'a' value: 2 }]")
    file.write_text(text)
    assert move_label(file, "b", 3)
    assert labels(file) == {"toy": {"a": 2, "b": 3}}


def test_a_label_that_names_the_version_already_leaves_the_file_as_it_is(versions: Path, tmp_path: Path) -> None:
    file = write(tmp_path, config(versions, 'version_labels { key: "stable" value: 2 }'))
    before = file.stat()
    run(2, "--label", "stable", "--config", file)
    assert file.stat() == before


@pytest.mark.parametrize(
    ("version", "options", "error", "said"),
    [
        (9, [], InvalidInputError, r"has no complete version 9 of model toy; it has 3, 1$"),
        (2, [], InvalidInputError, r"has no complete version 2"),
        (1, [], InvalidInputError, r"do not load version 1, because the version policy of model toy chooses 3, 2;"),
        (3, ["--model-name", "digits"], InvalidInputError, r"does not list model digits; it lists toy"),
        (3, ["--to", "/nowhere"], DataError, r"/nowhere cannot be read: .* If this machine has it elsewhere, .* --to"),
    ],
    ids=["absent", "incomplete", "not loaded", "unknown model", "no folder"],
)
def test_a_version_that_servers_cannot_answer_with_is_refused_and_nothing_changes(
    version: int, options: list[str], error: type[DigitforgeError], said: str, versions: Path
) -> None:
    tmp_path = versions.parent
    (versions / "2" / "saved_model.pb").unlink()
    file = write(tmp_path, config(versions, 'version_labels { key: "stable" value: 3 }'))
    before = file.read_text()
    with pytest.raises(error, match=said):
        run(version, "--label", "stable", "--config", file, *options)
    assert file.read_text() == before


def test_one_of_several_models_must_be_chosen(versions: Path, tmp_path: Path) -> None:
    file = write(tmp_path, config(versions), config(versions, name="other"))
    with pytest.raises(InvalidInputError, match="lists several models; choose one with --model-name: toy, other"):
        run(3, "--label", "stable", "--config", file)
    run(3, "--label", "stable", "--config", file, "--model-name", "other")
    assert labels(file) == {"toy": {}, "other": {"stable": 3}}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["3", "--label", "stable"], "--label needs --config"),
        (["3", "--config", "models.config"], "need --label"),
        (["models/3", "--label", "stable", "--config", "models.config"], "give the number of a version"),
    ],
)
def test_options_that_do_not_fit_are_explained(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(models, ["promote", *arguments])
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_file_of_a_windows_editor_keeps_its_comments_and_line_ends(versions: Path, tmp_path: Path) -> None:
    file = write(tmp_path, config(versions, 'version_labels { key: "stable" value: 2 }'))
    before = file.read_bytes().replace(b"\n", b"\r\n")
    file.write_bytes(b"\xef\xbb\xbf" + before)
    assert move_label(file, "stable", 3)
    assert labels(file) == {"toy": {"stable": 3}}
    assert file.read_bytes() == before.replace(b"value: 2", b"value: 3")
