"""The page's documents and the REST API's description, over real sockets."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator, validate
from openapi_spec_validator import OpenAPIV31SpecValidator
from ports import free_port
from serve_process import serving

from digitforge_client.errors import InvalidInputError
from digitforge_serving import ModelSource, Server, ServerOptions
from digitforge_serving.config.options import PROMETHEUS_PATH
from digitforge_serving.page.server import Upstream


@pytest.fixture(scope="module")
def server(exported_model: Path) -> Iterator[Server]:
    source = ModelSource(name="digits", base_path=exported_model, labels={"stable": 1})
    options = ServerOptions(
        port=0, rest_api_port=0, metrics_path=PROMETHEUS_PATH, allow_version_labels_for_unavailable_models=True
    )
    server = Server([source], options)
    assert server.start()
    yield server
    server.stop()


def ask(address: str, method: str, path: str, body: Any = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request(method, path, None if body is None else json.dumps(body))
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, content


def get_json(address: str, path: str) -> Any:
    status, _, content = ask(address, "GET", path)
    assert status == 200
    return json.loads(content)


def rest(server: Server) -> str:
    assert server.rest_target is not None
    return server.rest_target


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_page_needs_nothing_from_elsewhere_and_may_not_load_it(server: Server) -> None:
    status, headers, content = ask(rest(server), "GET", "/")
    document = content.decode()
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    addresses = re.findall(r"""(?:src|href)=["']?([^"'>\s]+)""", document)
    assert {address.partition(":")[0] for address in addresses} == {"data", "openapi.json", "#digits"}
    (style,) = re.findall(r"<style>(.*?)</style>", document, re.S)
    (script,) = re.findall(r"<script[^>]*>(.*?)</script>", document, re.S)
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == digest(script)
    assert policy["style-src"] == digest(style)
    assert policy["connect-src"] == "'self'"


def test_page_json_says_what_the_page_must_know(server: Server) -> None:
    assert get_json(rest(server), "/page.json") == {
        "models": ["digits"],
        "grpc_host": None,
        "grpc_port": int(server.target.rpartition(":")[2]),
        "grpc_tls": False,
        "metrics_path": PROMETHEUS_PATH,
    }


def test_head_gives_the_headers_of_get(server: Server) -> None:
    for path in ("/", "/page.json", "/openapi.json"):
        status, headers, content = ask(rest(server), "HEAD", path)
        assert (status, content) == (200, b"")
        assert int(headers["content-length"]) > 0


def test_the_description_is_valid_and_every_operation_answers_as_described(server: Server) -> None:
    document = get_json(rest(server), "/openapi.json")
    OpenAPIV31SpecValidator(document).validate()
    operations = 0
    for template, item in document["paths"].items():
        path = template.replace("{model}", "digits").replace("{version}", "1").replace("{label}", "stable")
        for method in item.keys() & {"get", "post"}:
            operation = item[method]
            bodies = [None]
            if method == "post":
                bodies = [
                    one["value"] for one in operation["requestBody"]["content"]["application/json"]["examples"].values()
                ]
            for body in bodies:
                operations += 1
                status, headers, content = ask(rest(server), method.upper(), path, body)
                assert status == 200, (path, content)
                ((media_type, described),) = operation["responses"]["200"]["content"].items()
                assert headers["content-type"].partition(";")[0] == media_type
                if media_type == "application/json":
                    schema = {**described["schema"], "components": document["components"]}
                    validate(json.loads(content), schema, cls=OAS31Validator)
    assert operations == 16


def test_errors_are_as_described(server: Server) -> None:
    document = get_json(rest(server), "/openapi.json")
    schema = {"$ref": "#/components/schemas/Error", "components": document["components"]}
    predict = document["paths"]["/v1/models/{model}:predict"]["post"]
    for path, body, expected in (
        ("/v1/models/none:predict", {"instances": [1]}, 404),
        ("/v1/models/digits:predict", {"instances": []}, 400),
        ("/v1/models/digits:predict", {"instances": ["0" * 9 * 2**20]}, 413),
    ):
        status, _, content = ask(rest(server), "POST", path, body)
        assert status == expected
        assert str(status) in predict["responses"]
        validate(json.loads(content), schema, cls=OAS31Validator)


# --- --page-for


def test_a_page_for_another_server_forwards_its_api(server: Server, tmp_path: Path) -> None:
    url = f"http://{rest(server)}"
    with serving(tmp_path, f"--page-for={url}", f"--rest-api-port={free_port()}", "--json") as process:
        announced = json.loads(process.line())
        assert announced["page_for"] == url
        page = announced["page"].removeprefix("http://").rstrip("/")
        assert ask(page, "GET", "/")[2] == ask(rest(server), "GET", "/")[2]
        assert get_json(page, "/page.json")["models"] == ["digits"]
        body = {"inputs": {"labels": [3, 7], "seeds": [0, 1]}}
        for method, path, content in (
            ("POST", "/v1/models/digits:predict", body),
            ("POST", "/v1/models/none:predict", body),
            ("GET", "/v1/models/digits/versions/1", None),
            ("GET", "/v1/models/digits/metadata", None),
            ("GET", "/v1/models/none", None),
        ):
            status, headers, answer = ask(page, method, path, content)
            expected = ask(rest(server), method, path, content)
            assert (status, headers["content-type"], answer) == (expected[0], expected[1]["content-type"], expected[2])
        assert b":tensorflow:serving:request_count" in ask(page, "GET", PROMETHEUS_PATH)[2]
        assert ask(page, "POST", "/v1/models/digits:predict", {"instances": ["0" * 9 * 2**20]})[0] == 413
        assert ask(page, "GET", "/elsewhere")[0] == 404
        assert "tensorflow" not in Path(f"/proc/{process.popen.pid}/maps").read_text()  # it needs no TensorFlow
        assert process.end(signal.SIGTERM) == 0


def test_a_page_says_when_its_server_cannot_be_reached(tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with serving(tmp_path, f"--page-for={nobody}", f"--rest-api-port={free_port()}") as process:
        page = process.line().partition("ready: http://")[2].strip().rstrip("/")
        status, _, content = ask(page, "GET", "/v1/models/digits")
        assert status == 502
        error = json.loads(content)["error"]
        assert error.startswith(f"{nobody} cannot be reached: ")
        assert error.endswith("check that it runs, and that this is its REST port")
        assert process.end(signal.SIGINT) == 130


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8501", Upstream(host="localhost", port=8501)),
        ("https://[::1]/", Upstream(host="::1", port=443, tls=True)),
        ("http://digits", Upstream(host="digits", port=80)),
    ],
)
def test_urls_of_servers(url: str, expected: Upstream) -> None:
    assert Upstream.of(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8501",
        "127.0.0.1:8501",
        "grpc://x:8500",
        "http://",
        "http://x:0x1",
        "http://x:99999",
        "http://[::1",
    ]
    + ["http://x/v1/models", "http://x?y", "http://user:password@x", "http://x#y"],
)
def test_urls_that_do_not_name_a_server(url: str) -> None:
    with pytest.raises(InvalidInputError, match="expected the REST server's URL, as in http://localhost:8501"):
        Upstream.of(url)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--page-for needs a port for the page; give --rest-api-port as well"),
        (["--rest-api-port=0", "--port=8500"], "--port has no effect with --page-for"),
        (["--rest-api-port=0", "--model-base-path=x"], "--model-base-path has no effect with --page-for"),
    ],
)
def test_options_that_do_not_fit_a_page(tmp_path: Path, arguments: list[str], message: str) -> None:
    with serving(tmp_path, "--page-for=http://localhost:8501", *arguments) as process:
        assert process.end() == 2
        assert message in process.stderr.read_text()
