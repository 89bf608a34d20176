"""Data sets for others: Hugging Face's `datasets` and Croissant load them, and the Hub gets them whole."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from commands import one_line, start
from shards import names, run

from digitforge_client import Batch, DigitClient
from digitforge_client.datasets import croissant, data_card
from digitforge_client.datasets.generate import generate
from digitforge_client.datasets.manifest import Manifest, Plan
from digitforge_client.testing import FakeTransport

pytest.importorskip("joblib")
pytest.importorskip("pyarrow")

PLAN = Plan(n=50, seed=6, start=71, rows_per_shard=20, format="parquet")
#: Names that YAML and Markdown would read as something else.
CLASSES = ("zero", "no", "a|b: #c\n")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def made(folder: Path, transport: FakeTransport, plan: Plan = PLAN) -> tuple[Manifest, Batch]:
    client = DigitClient(transports=[transport])
    return generate(client, folder, plan, jobs=1), client.sample(plan.n, seed=plan.seed, start=plan.start)


def loaded(folder: Path, cache: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    return datasets.load_dataset(str(folder), split="train", cache_dir=str(cache))


@pytest.mark.parametrize("shape", [(28, 28, 1), (5, 4, 3)])
def test_hugging_faces_library_loads_the_images_with_class_names(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    _, digits = made(tmp_path / "set", FakeTransport(class_names=CLASSES, image_shape=shape))
    data = loaded(tmp_path / "set", tmp_path / "cache")
    assert data.features["label"].names == list(CLASSES)
    assert type(data.features["image"]).__name__ == "Image"
    np.testing.assert_array_equal(np.stack([np.asarray(row["image"]) for row in data]), digits.images)
    assert data["label"][:] == digits.labels.tolist()
    assert data["seed"][:] == digits.seeds.tolist()


def test_hugging_faces_library_loads_images_without_classes(tmp_path: Path) -> None:
    made(tmp_path / "set", FakeTransport(class_names=()))
    data = loaded(tmp_path / "set", tmp_path / "cache")
    assert (len(data), set(data["label"][:]), data.features["label"].dtype) == (50, {-1}, "int64")


@pytest.mark.parametrize("classes", [CLASSES, ()])
def test_croissant_metadata_are_valid_and_load_the_images(tmp_path: Path, classes: tuple[str, ...]) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    _, digits = made(tmp_path / "set", FakeTransport(class_names=classes))
    dataset = mlcroissant.Dataset(jsonld=str(tmp_path / "set" / croissant.NAME))
    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    # digitforge knows neither of them; the data card says so of the license
    assert {text.split("/")[-1].split('"')[0] for text in issues.warnings} == {"license", "datePublished"}
    records = list(dataset.records("images"))
    np.testing.assert_array_equal(np.stack([np.asarray(each["images/image"]) for each in records]), digits.images)
    assert [each["images/label"] for each in records] == digits.labels.tolist()
    assert [each["images/seed"] for each in records] == digits.seeds.tolist()
    if classes:
        found = [each["classes/name"] for each in dataset.records("classes")]
        assert [each.decode() if isinstance(each, bytes) else each for each in found] == list(classes)


def test_croissant_names_the_checksum_of_every_shard(tmp_path: Path) -> None:
    made(tmp_path / "set", FakeTransport())
    about = json.loads((tmp_path / "set" / croissant.NAME).read_text("utf-8"))
    files = {each["contentUrl"]: each["sha256"] for each in about["distribution"] if "contentUrl" in each}
    assert len(files) == 3
    for name, checksum in files.items():
        assert checksum == hashlib.sha256((tmp_path / "set" / name).read_bytes()).hexdigest()


@pytest.mark.parametrize("label", [None, 1])
@pytest.mark.parametrize(("start", "n"), [(0, 10), (71, 50), (2, 1), (5, 2)])
def test_the_data_card_counts_the_images_of_each_class(tmp_path: Path, label: int | None, start: int, n: int) -> None:
    client = DigitClient(transports=[FakeTransport(class_names=CLASSES)])
    plan = Plan(n=n, seed=6, start=start, label=label, format="parquet")
    manifest = Manifest.new(plan, client.generator().card)
    labels = client.sample(n, labels=label, seed=6, start=start).labels
    assert list(data_card.class_counts(manifest).values()) == np.bincount(labels, minlength=3).tolist()


def test_the_data_card_has_the_command_that_makes_the_same_images(server: Any, tmp_path: Path) -> None:
    options = ["--n", 30, "--seed", 4, "--start", 3, "--label", 7, "--rows-per-shard", 20]
    assert run(server, "generate", tmp_path / "a", "--format", "parquet", *options).returncode == 0
    text = (tmp_path / "a" / data_card.NAME).read_text("utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("digitforge generate FOLDER ")]
    assert run(server, "generate", tmp_path / "b", *line.split()[3:]).returncode == 0
    assert names(tmp_path / "a") == names(tmp_path / "b")
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_data_card_keeps_what_people_write_and_croissant_follows_the_files(tmp_path: Path) -> None:
    folder, transport = tmp_path / "set", FakeTransport()
    manifest, _ = made(folder, transport)
    described = (folder / croissant.NAME).read_bytes()
    (folder / data_card.NAME).write_text("---\nlicense: cc0-1.0\n---\n")
    (folder / croissant.NAME).write_text("old")
    (folder / manifest.shards[1].file).unlink()
    made(folder, transport)
    assert (folder / data_card.NAME).read_text() == "---\nlicense: cc0-1.0\n---\n"
    assert (folder / croissant.NAME).read_bytes() == described


def test_the_data_card_states_the_scaling(tmp_path: Path) -> None:
    made(tmp_path / "set", FakeTransport(), replace(PLAN, expansion=1.3))
    text = (tmp_path / "set" / data_card.NAME).read_text("utf-8")
    assert text.count("expansion 1.3") == 3  # generator, command and citation


def test_other_formats_get_no_cards(tmp_path: Path) -> None:
    generate(DigitClient(transports=[FakeTransport()]), tmp_path, Plan(n=5, seed=1), jobs=1)
    assert names(tmp_path) == {"manifest.json", "shard-00000-of-00001.npz"}


class Hub(ThreadingHTTPServer):
    """A stand-in of the Hub's HTTP interface: repositories in memory, with files in commits and in LFS."""

    token = "hf_standin"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.objects: dict[str, bytes] = {}

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:  # noqa: PLR0911
        if method == "PUT":
            name = path.rpartition("/")[2]
            assert hashlib.sha256(body).hexdigest() == name
            self.objects[name] = body
            return 200, {}
        if path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\n")
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                each | {"actions": {"upload": {"href": f"{self.address}/lfs/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            return 200, {"transfer": "basic", "objects": objects}
        _, _, _, user, name, *rest = path.split("/")
        files = self.repositories[f"{user}/{name}"]
        match [method, *rest]:
            case ["GET", "tree", "main"]:
                return 200, [{"type": "file", "path": path, "size": 1, "oid": "0"} for path in files]
            case ["GET", "revision", "main"] | ["GET"]:
                siblings = [{"rfilename": path} for path in files]
                return 200, {"id": f"{user}/{name}", "sha": "0" * 40, "siblings": siblings}
            case ["POST", "preupload", "main"]:
                modes = [
                    {"path": each["path"], "shouldIgnore": False, "oid": None}
                    | {"uploadMode": "lfs" if each["path"].endswith(".parquet") else "regular"}
                    for each in json.loads(body)["files"]
                ]
                return 200, {"files": modes}
            case ["POST", "commit", "main"]:
                for line in map(json.loads, body.splitlines()):
                    self._commit(files, line["key"], line["value"])
                url = f"{self.address}/datasets/{user}/{name}/commit/{'1' * 40}"
                return 200, {"commitUrl": url, "commitOid": "1" * 40}
        raise AssertionError(f"an unexpected request: {method} {path}")

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        assert wanted["type"] == "dataset"
        name = f"{wanted['organization']}/{wanted['name']}"
        url = f"{self.address}/datasets/{name}"
        if name in self.repositories:
            return 409, {"error": "exists", "url": url}
        self.repositories[name] = {"shard-00000-of-00007.parquet": b"of an earlier upload"} if "old" in name else {}
        self.private[name] = "private" in (wanted.get("visibility"), wanted.get("private") and "private")
        return 200, {"url": url}

    def _commit(self, files: dict[str, bytes], key: str, value: dict[str, Any]) -> None:
        if key == "file":
            assert value["encoding"] == "base64"
            files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            files[value["path"]] = self.objects[value["oid"]]
        elif key == "deletedFile":
            del files[value["path"]]
        else:
            assert key == "header", key


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def _reply(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        path = urlsplit(self.path).path
        authorized = path.startswith("/lfs/") or self.headers.get("Authorization") == f"Bearer {self.server.token}"
        status, reply = self.server.answer(self.command, path, body) if authorized else (401, {"error": "wrong token"})
        content = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        content = self.rfile.read(size)
        self.rfile.readline()
        return content

    do_GET = do_POST = do_PUT = _reply  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub")
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("HF_TOKEN", server.token)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")  # the stand-in has no xet storage
        monkeypatch.delenv("HF_HUB_OFFLINE")
        yield server
        server.shutdown()


@pytest.fixture
def share(server: Any, tmp_path: Path) -> Callable[..., Any]:
    """Generate a data set in a process of its own, because the library reads the environment when it is imported."""

    def call(*more: str) -> subprocess.CompletedProcess[str]:
        options = ["--n", "50", "--seed", "6", "--rows-per-shard", "20", "--format", "parquet", "--jobs", "1", "--json"]
        with start("generate", tmp_path / "set", "--server", server.target, *options, *more) as process:
            out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return call


@pytest.mark.parametrize(("name", "private"), [("me/new", True), ("me/old", False)])
def test_the_hub_gets_the_whole_data_set(
    hub: Hub, share: Callable[..., Any], tmp_path: Path, name: str, private: bool
) -> None:
    done = share("--push-to-hub", name, *["--private"] * private)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["hub"] == f"{hub.address}/datasets/{name}"
    assert hub.private == {name: private}
    uploaded = hub.repositories[name]
    assert uploaded == {each: (tmp_path / "set" / each).read_bytes() for each in names(tmp_path / "set")}
    assert {hashlib.sha256(content).hexdigest() for path, content in uploaded.items() if path.endswith("parquet")} == {
        *hub.objects
    }
    again = share("--push-to-hub", name)  # the data set exists on the Hub now
    assert again.returncode == 0, again.stderr

    copy = tmp_path / "copy"
    copy.mkdir()
    for path, content in uploaded.items():
        (copy / path).write_bytes(content)
    assert len(loaded(copy, tmp_path / "cache")) == 50


def test_a_wrong_token_is_one_line_and_keeps_the_data_set(
    hub: Hub, share: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    done = share("--push-to-hub", "me/new")
    assert done.returncode == 4
    assert "HF_TOKEN" in one_line(done)
    assert Manifest.load(tmp_path / "set").finished == 3


def test_an_unreachable_hub_is_one_line(hub: Hub, share: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    done = share("--push-to-hub", "me/new")
    assert done.returncode == 1
    assert "cannot reach the Hub" in one_line(done)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--push-to-hub", "me/a b"), "expected USER/NAME"),
        (("--push-to-hub", "me/digits", "--format", "npz"), "needs --format parquet"),
    ],
)
def test_an_upload_that_cannot_work_is_refused_before_anything_is_made(
    hub: Hub, share: Callable[..., Any], tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = share(*arguments)
    assert (done.returncode, says in one_line(done)) == (2, True), done.stderr
    assert not (tmp_path / "set").exists()
