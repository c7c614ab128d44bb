"""`bench play`: time from an action to its picture, in a WebSocket client or in a browser."""

import json
import random
import shutil
import socket
import statistics
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genie_datasets.base.errors import UserError

WARM_UP = 20  # actions that are not timed
SEQUENCE = 100  # actions of the typed sequence that gives the frame rate in a browser
WATCH = """() => {
  window.timings = [];
  let began = 0;
  addEventListener("keydown", () => { began = performance.now(); }, true);
  // From the key press until the changed canvas is painted.
  new MutationObserver(() => requestAnimationFrame(() => setTimeout(() => timings.push(performance.now() - began))))
    .observe(document.getElementById("dream"), {attributes: true, attributeFilter: ["aria-label"]});
}"""


def bench_play(run: str, num_actions: int = 400, browser: bool = False, seed: int = 0) -> dict[str, float]:
    """Plays random actions, each as soon as the picture of the last one has arrived.

    Returns:
        fps: frames per second;
        p50_ms, p95_ms: milliseconds from action to decoded picture, or with `browser` from key press to painted frame;
        compute_p50_ms: of these, the model's part (without `browser`);
        growth_mb: growth of anonymous memory over the second half (without `browser`).

    Raises:
        UserError: `run` cannot be opened, or `browser` and there is no Chromium.
    """
    from genie_robotics.player.commands import PlayOptions, make_player

    player = make_player(PlayOptions(run=run))
    with served(player) as port:
        return (in_browser if browser else by_client)(player, port, num_actions, random.Random(seed))


@contextmanager
def served(player: Any) -> Iterator[int]:
    """Runs the player's server in a thread and yields its port."""
    import uvicorn

    from genie_robotics.player.server import make_app

    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    port = bound.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(make_app(player), port=port, log_level="error"))
    thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(10)


def in_browser(player: Any, port: int, num_actions: int, rng: random.Random) -> dict[str, float]:
    """Presses keys in headless Chromium, each after the last frame; then a typed sequence gives the frame rate."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        chromium = None
    if chromium is None:
        raise UserError(
            "--browser needs Chromium and playwright; run apt-get install chromium and pip install playwright"
        )
    num_codes = min(8, player.genie.config.num_actions)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = opened.new_page(bypass_csp=True)  # the policy of the page forbids wait_for_function
        page.goto(f"http://127.0.0.1:{port}")
        page.wait_for_selector("#dream[aria-label^='Step 0,']")
        page.evaluate(WATCH)
        for number in range(WARM_UP + num_actions):
            page.keyboard.press(str(1 + rng.randrange(num_codes)))
            page.wait_for_function(f"timings.length > {number}", polling=5)
        latencies = page.evaluate("timings")[WARM_UP:]
        page.fill("#codes", " ".join(str(rng.randrange(num_codes)) for _ in range(SEQUENCE)))
        last = WARM_UP + num_actions + SEQUENCE
        began = time.perf_counter()
        page.press("#codes", "Enter")
        page.wait_for_selector(f"#dream[aria-label^='Step {last},']", timeout=1000 * SEQUENCE)
        rate = SEQUENCE / (time.perf_counter() - began)
        opened.close()
    return {"fps": rate, "p50_ms": statistics.median(latencies), "p95_ms": statistics.quantiles(latencies, n=20)[-1]}


def by_client(player: Any, port: int, num_actions: int, rng: random.Random) -> dict[str, float]:
    """Plays in a WebSocket client that decodes each picture."""
    from websockets.sync.client import connect

    from genie_datasets.sources.decode import decode_image

    latencies, computed, memory = [], [], []
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
                latencies.append(1000 * (time.perf_counter() - began))
                computed.append(json.loads(data[4 : 4 + length])["ms"])
                memory.append(anonymous_memory())
    return {
        "fps": 1000 / statistics.fmean(latencies),
        "p50_ms": statistics.median(latencies),
        "p95_ms": statistics.quantiles(latencies, n=20)[-1],
        "compute_p50_ms": statistics.median(computed),
        "growth_mb": (memory[-1] - memory[len(memory) // 2]) / 1e6,
    }


def anonymous_memory() -> int:
    """Bytes of this process's memory that are not mapped files; 0 if the system does not report it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)
