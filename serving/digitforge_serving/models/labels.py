"""Move a version label in a model configuration file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from digitforge_client.common.files import replacing
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_serving.config import messages
from digitforge_serving.config.options import ModelSource, model_sources
from digitforge_serving.models import publication


def move_label(
    file: Path, label: str, version: int, *, model: str | None = None, base_path: Path | None = None
) -> bool:
    """Let a label name a version. Replaces the file atomically, so a server that watches it never reads a part.

    Args:
        file: the model configuration (``ModelServerConfig`` in protobuf text).
        label: created if the model has no such label.
        version: number of a version that the model's policy loads.
        model: name of the model; None if the file lists only one.
        base_path: the model folder, if this machine has it elsewhere than at the ``base_path`` in the file.

    Returns:
        Whether comments and layout of the file were kept. If its text cannot be changed in one place, all of it is
        written again, without comments.

    Raises:
        InvalidInputError: the file is not valid or does not list the model, or the model folder lacks the version, or
            the policy does not load it.
        DataError: the file or the folder cannot be read, or the file cannot be written.
    """
    wanted = messages.read(file, ModelServerConfig)
    source = _find(model_sources(wanted), model, file)
    _check(source, version, base_path or source.base_path)
    if source.labels.get(label) == version:
        return True
    entry = next(entry for entry in wanted.model_config_list.config if entry.name == source.name)
    entry.version_labels[label] = version
    changed = _change(messages.read_text(file), label, version, wanted)
    with replacing(file) as output:
        output.write((changed or text_format.MessageToString(wanted, as_utf8=True)).encode())
    return changed is not None


def _find(sources: tuple[ModelSource, ...], model: str | None, file: Path) -> ModelSource:
    names = [source.name for source in sources]
    if model is None and len(names) > 1:
        raise InvalidInputError(f"{file} lists several models; choose one with --model-name: {', '.join(names)}")
    if model is not None and model not in names:
        raise InvalidInputError(f"{file} does not list model {model}; it lists {', '.join(names)}")
    return sources[0 if model is None else names.index(model)]


def _check(source: ModelSource, version: int, base_path: Path) -> None:
    try:
        present = {info.version: info for info in publication.versions(base_path)}
    except DataError as error:
        raise DataError(f"{error}. If this machine has it elsewhere, name it with --to") from error
    if version not in present or not present[version].complete:
        usable = ", ".join(str(info.version) for info in present.values() if info.complete)
        raise InvalidInputError(
            f"{base_path} has no complete version {version} of model {source.name}; it has {usable or 'none'}"
        )
    loaded = source.choose(list(present))
    if version not in loaded:
        raise InvalidInputError(
            f"servers do not load version {version}, because the version policy of model {source.name} chooses "
            f"{', '.join(map(str, loaded)) or 'none'}; change model_version_policy first"
        )


def _change(text: str, label: str, version: int, wanted: ModelServerConfig) -> str | None:
    """Change the text in one place so that it means *wanted*. None if no such change is found."""
    for candidate in _candidates(text, label, version):
        try:
            if text_format.Parse(candidate, ModelServerConfig()) == wanted:
                return candidate
        except text_format.ParseError:
            continue
    return None


def _candidates(text: str, label: str, version: int) -> Iterator[str]:
    """Texts in which one number is the version, or in which one block has a new last line with the label."""
    for number in re.finditer(r"[+-]?\b\d\w*", text):
        yield text[: number.start()] + str(version) + text[number.end() :]
    entry = text_format.MessageToString(ModelConfig(version_labels={label: version}), as_utf8=True, as_one_line=True)
    for brace in re.finditer(r"^([ \t]*)[}>]", text, re.MULTILINE):
        yield f"{text[: brace.start()]}{brace[1]}  {entry}\n{text[brace.start() :]}"
    for brace in re.finditer("[}>]", text):
        yield f"{text[: brace.start()]} {entry} {text[brace.start() :]}"
