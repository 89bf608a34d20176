"""The examples of the production guide for other languages do what the guide says."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from digitforge_client import DigitClient
from digitforge_serving import EmbeddedServer

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "guides" / "production.md").read_text("utf-8")
REST = "http://127.0.0.1:8501"


def example(language: str, containing: str) -> str:
    """The only code block of the guide in this language that contains a text."""
    blocks: list[str] = re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    (block,) = (each for each in blocks if containing in each)
    return block


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[DigitClient, str]]:
    """A client of the shipped generator, and the address of REST."""
    embedded = EmbeddedServer(rest_api_port=0)
    with embedded as target, DigitClient(target) as client:
        yield client, f"http://{embedded._server.rest_target}"


def test_curl_gets_a_picture(server: tuple[DigitClient, str], tmp_path: Path) -> None:
    client, rest = server
    command = example("sh", "seven.png").replace(REST, rest).replace("| python ", f"| {sys.executable} ")
    subprocess.run(["sh", "-ec", command], cwd=tmp_path, check=True)
    picture = np.asarray(Image.open(io.BytesIO((tmp_path / "seven.png").read_bytes())))
    np.testing.assert_allclose(picture, client.sample(labels=[7], seed=0).images[0], atol=1)


@pytest.mark.skipif(shutil.which("node") is None, reason="this machine has no node")
def test_javascript_gets_the_images_of_an_address(server: tuple[DigitClient, str], tmp_path: Path) -> None:
    client, rest = server
    (tmp_path / "example.mjs").write_text(example("js", "fetch") + "console.log(JSON.stringify(images));\n")
    command = ["node", str(tmp_path / "example.mjs"), f"{rest}/v1/models/digits:predict"]
    shown, images = subprocess.run(command, check=True, capture_output=True, text=True).stdout.rsplit("\n", 2)[:2]
    assert shown.startswith("5 28 28 [")
    wanted = client.sample(labels=[3, 1, 4, 1, 5], seed=7).images
    np.testing.assert_allclose(np.array(yaml.safe_load(images))[..., 0], wanted, atol=1)


def test_the_table_of_alerts_names_every_alert() -> None:
    rules = yaml.safe_load((ROOT / "serving" / "monitoring" / "alerts.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert set(re.findall(r"`(Digitforge\w+)`", GUIDE)) == alerts
