"""digitforge: an embedded server that speaks TensorFlow Serving's protocol.

    from digitforge_serving import EmbeddedServer

    with EmbeddedServer() as target:  # the shipped generator; or name a folder with the versions of a model
        ...  # target is such as "127.0.0.1:41234"

Importing this package imports neither TensorFlow nor the protocol's messages; starting a server does.
"""

from __future__ import annotations

from digitforge_serving.config.options import ModelSource, ServerOptions
from digitforge_serving.models.locations import shipped_config, shipped_models
from digitforge_serving.server import EmbeddedServer, Server

__all__ = ["EmbeddedServer", "ModelSource", "Server", "ServerOptions", "shipped_config", "shipped_models"]
