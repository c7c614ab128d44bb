"""The player's server in a thread, with a world whose steps take milliseconds."""

import socket
import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest

from genie_robotics.labeling.code_meanings import Meaning
from genie_robotics.player.limits import Limits
from genie_robotics.player.starts import Start
from tests.genie_robotics.conftest import random_genie, tiny_config


@dataclass
class Running:
    port: int
    player: object
    server: object

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def page(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def starts() -> list[Start]:
    rng = np.random.default_rng(0)
    return [Start(f"start {i}", rng.integers(0, 256, (16, 16, 3), np.uint8)) for i in range(3)]


@pytest.fixture
def serve():
    """A function that starts a server; servers end with the test."""
    uvicorn = pytest.importorskip("uvicorn")
    from genie_robotics.player.commands import hosts
    from genie_robotics.player.server import Player, make_app

    servers = []

    def start(
        limits: Limits | None = None,
        origins: tuple[str, ...] = (),
        genie=None,
        given=None,
        names=None,
        display: int | None = None,
    ) -> Running:
        limits = limits or Limits()
        genie = genie or random_genie(tiny_config())
        names = names or [f"move {code}" for code in range(genie.config.num_actions)]
        meanings = [name if isinstance(name, Meaning) else Meaning(name) for name in names]
        player = Player(genie, "tiny", meanings, given or starts(), limits, origins, display)
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        config = uvicorn.Config(
            make_app(player, hosts("127.0.0.1")), host="127.0.0.1", port=port, log_level="error",
            ws_max_size=limits.upload_bytes + 1024, ws_per_message_deflate=False,
        )  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
        thread.start()
        servers.append((server, thread))
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        return Running(port, player, server)

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join(10)
