"""digitforge: an embedded server that speaks TensorFlow Serving's protocol.

    from digitforge_serving import EmbeddedServer

    with EmbeddedServer() as target:  # serves the shipped generator; for another model, pass its folder
        ...  # target is an address such as "127.0.0.1:41234"

TensorFlow is imported when a server starts, not when this package is imported.
"""

from __future__ import annotations

from digitforge_client.common.shipped import shipped_config, shipped_models
from digitforge_serving.config.options import ModelSource, ServerOptions
from digitforge_serving.server import EmbeddedServer, Server

__all__ = ["EmbeddedServer", "ModelSource", "Server", "ServerOptions", "shipped_config", "shipped_models"]
