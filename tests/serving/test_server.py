"""The embedded server in this process."""

from __future__ import annotations

from digitforge_client import DigitClient
from digitforge_serving import EmbeddedServer, shipped_models


def test_by_default_the_server_serves_the_shipped_generator() -> None:
    with EmbeddedServer(enable_model_warmup=False) as target, DigitClient(target) as client:
        batch = client.sample(2, seed=0)
    assert f"| generator | `{batch.generator_id}` |" in (shipped_models() / "digits" / "MODEL_CARD.md").read_text(
        "utf-8"
    )
