"""How fast a world is played: from an action sent to a page's connection to its picture, decoded."""

import json
import socket
import statistics
import struct
import threading
import time
from pathlib import Path

WARM_UP = 20  # actions that are not counted


def bench_play(run: str, num_actions: int = 400, seed: int = 0) -> dict[str, float]:
    """Plays random actions one after the other, as a hand that never rests would.

    Returns "fps" and milliseconds from action to picture ("p50_ms", "p95_ms"), those of the model alone
    ("compute_p50_ms"), and the growth of anonymous memory over the second half ("growth_mb").
    """
    import random

    import uvicorn
    from websockets.sync.client import connect

    from genie_datasets.decode import decode_image
    from genie_robotics.player.commands import PlayOptions, make_player, one_thread_if_small
    from genie_robotics.player.server import make_app

    player = make_player(PlayOptions(run=run))
    one_thread_if_small(player.genie)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(make_app(player), port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    rng = random.Random(seed)
    waited, computed, memory = [], [], []
    try:
        with connect(f"ws://127.0.0.1:{port}/ws", max_size=None) as connection:
            connection.recv()
            connection.recv()
            for number in range(WARM_UP + num_actions):
                code = rng.randrange(player.genie.config.num_actions)
                began = time.perf_counter()
                connection.send(json.dumps({"type": "act", "code": code}))
                data = connection.recv()
                assert isinstance(data, bytes)
                (length,) = struct.unpack(">I", data[:4])
                decode_image(data[4 + length :])
                if number >= WARM_UP:
                    waited.append(1000 * (time.perf_counter() - began))
                    computed.append(json.loads(data[4 : 4 + length])["ms"])
                    memory.append(anonymous())
    finally:
        server.should_exit = True
        thread.join(10)
    return {
        "fps": 1000 / statistics.fmean(waited),
        "p50_ms": statistics.median(waited),
        "p95_ms": statistics.quantiles(waited, n=20)[-1],
        "compute_p50_ms": statistics.median(computed),
        "growth_mb": (memory[-1] - memory[len(memory) // 2]) / 1e6,
    }


def anonymous() -> int:
    """Bytes of memory that are no copy of a file; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)
