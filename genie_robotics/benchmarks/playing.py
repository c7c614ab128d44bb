"""How fast a world is played: from an action sent to a page's connection to its picture, decoded."""

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

WARM_UP = 20  # actions that are not counted
SEQUENCE = 100  # actions of the typed sequence that a browser is timed on
WATCH = """() => {
  window.timings = [];
  let began = 0;
  addEventListener("keydown", () => { began = performance.now(); }, true);
  // From the key to the frame in which the changed canvas is painted.
  new MutationObserver(() => requestAnimationFrame(() => setTimeout(() => timings.push(performance.now() - began))))
    .observe(document.getElementById("dream"), {attributes: true, attributeFilter: ["aria-label"]});
}"""


def bench_play(run: str, num_actions: int = 400, browser: bool = False, seed: int = 0) -> dict[str, float]:
    """Plays random actions one after the other, as a hand that never rests would.

    Returns "fps" and milliseconds from action to picture ("p50_ms", "p95_ms"): to a client that decodes it, or with
    `browser` from a key pressed in Chromium to its painting. The first also gives the time of the model alone
    ("compute_p50_ms") and the growth of anonymous memory over the second half ("growth_mb").

    Raises:
        UserError: `run` cannot be opened; there is no Chromium.
    """
    from genie_robotics.player.commands import PlayOptions, make_player

    player = make_player(PlayOptions(run=run))
    with served(player) as port:
        return (in_browser if browser else by_client)(player, port, num_actions, random.Random(seed))


@contextmanager
def served(player: Any) -> Iterator[int]:
    """The player's server in a thread; gives its port."""
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
    """Keys pressed in headless Chromium, each when the picture before is there; then a typed sequence for the rate."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        chromium = None
    if chromium is None:
        raise UserError("--browser needs Chromium and playwright: apt-get install chromium; pip install playwright")
    num_codes = min(8, player.genie.config.num_actions)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = opened.new_page(bypass_csp=True)  # or waiting for a condition would not be allowed
        page.goto(f"http://127.0.0.1:{port}")
        page.wait_for_selector("#dream[aria-label^='Step 0,']")
        page.evaluate(WATCH)
        for number in range(WARM_UP + num_actions):
            page.keyboard.press(str(1 + rng.randrange(num_codes)))
            page.wait_for_function(f"timings.length > {number}", polling=5)
        waited = page.evaluate("timings")[WARM_UP:]
        page.fill("#codes", " ".join(str(1 + rng.randrange(num_codes)) for _ in range(SEQUENCE)))
        last = WARM_UP + num_actions + SEQUENCE
        began = time.perf_counter()
        page.press("#codes", "Enter")
        page.wait_for_selector(f"#dream[aria-label^='Step {last},']", timeout=1000 * SEQUENCE)
        rate = SEQUENCE / (time.perf_counter() - began)
        opened.close()
    return {"fps": rate, "p50_ms": statistics.median(waited), "p95_ms": statistics.quantiles(waited, n=20)[-1]}


def by_client(player: Any, port: int, num_actions: int, rng: random.Random) -> dict[str, float]:
    """A client of the page's connection that decodes each picture."""
    from websockets.sync.client import connect

    from genie_datasets.sources.decode import decode_image

    waited, computed, memory = [], [], []
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
