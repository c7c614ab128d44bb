"""The server, driven by WebSocket clients."""

import asyncio
import io
import json
import random
import re
import struct
import urllib.error
import urllib.request
import zlib

import av
import cv2
import numpy as np
import pytest

from genie_datasets.base.errors import UserError
from genie_robotics.models.trust import TrustModel
from genie_robotics.player.commands import hosts, make_player, play
from genie_robotics.player.limits import Limits
from genie_robotics.player.saving import encode_png, encode_video
from tests.genie_robotics.conftest import random_genie, tiny_config

websockets = pytest.importorskip("websockets")


class Client:
    """The browser's side of the connection."""

    def __init__(self, connection):
        self.connection = connection

    async def ask(self, message: dict | bytes) -> tuple[dict, np.ndarray | bytes | None]:
        await self.connection.send(message if isinstance(message, bytes) else json.dumps(message))
        return await self.answer()

    async def answer(self) -> tuple[dict, np.ndarray | bytes | None]:
        found = await asyncio.wait_for(self.connection.recv(), 20)
        if isinstance(found, str):
            return json.loads(found), None
        (length,) = struct.unpack(">I", found[:4])
        header, content = json.loads(found[4 : 4 + length]), found[4 + length :]
        if header["type"] == "saved":
            return header, content
        return header, cv2.cvtColor(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def talk(running, conversation, **more):
    """Runs `conversation(client, hello, first frame)` over one connection."""

    async def run():
        async with websockets.connect(running.url, max_size=None, **more) as connection:
            client = Client(connection)
            hello, _ = await client.answer()
            first = await client.answer()
            return await conversation(client, hello, first)

    return asyncio.run(run())


def closed_with(running, **more) -> int:
    async def run():
        async with websockets.connect(running.url, **more) as connection:
            while True:
                try:
                    await asyncio.wait_for(connection.recv(), 20)
                except websockets.ConnectionClosed as closed:
                    return closed.rcvd.code

    return asyncio.run(run())


def test_frames_are_those_of_the_world(serve):
    running = serve()
    player = running.player

    async def conversation(client, hello, first):
        world = player.genie.start(player.starts[0].frame)
        assert hello["world"] == "tiny"
        assert hello["names"] == ["move 0", "move 1", "move 2", "move 3"]
        assert hello["starts"] == ["start 0", "start 1", "start 2"]
        np.testing.assert_array_equal(first[1], world.frame.numpy())
        for step, code in enumerate([0, 3, 2, 1, 1, 0, 2], 1):
            header, frame = await client.ask({"type": "act", "code": code})
            assert (header["step"], header["code"], header["can_undo"]) == (step, code, step)
            np.testing.assert_array_equal(frame, world.step(code).numpy())
        header, strip = await client.ask({"type": "preview"})
        assert strip.shape == (16, 64, 3)
        header, frame = await client.ask({"type": "act", "code": 2})
        np.testing.assert_array_equal(strip[:, 32:48], frame)
        header, _ = await client.ask({"type": "undo", "steps": 3})
        assert header["step"] == 5
        header, frame = await client.ask({"type": "start", "number": 2})
        assert (header["step"], header["start"]) == (0, "start 2")

    talk(running, conversation)


def test_sequences_branches_settings_and_saved_clips(serve):
    async def conversation(client, hello, first):
        header, _ = await client.ask({"type": "play", "codes": [0, 1, 2]})
        assert [header["step"]] + [(await client.answer())[0]["step"] for _ in range(2)] == [1, 2, 3]
        assert (await client.ask({"type": "branch"}))[0] == {"type": "branch", "branch": 0, "step": 3}
        await client.ask({"type": "restart"})
        assert (await client.ask({"type": "switch", "branch": 0}))[0]["step"] == 3
        assert (await client.ask({"type": "settings", "temperature": 0, "maskgit_steps": 2}))[0]["maskgit_steps"] == 2
        for kind in ("mp4", "gif"):
            header, data = await client.ask({"type": "save", "format": kind})
            assert header["trace"]["codes"] == [0, 1, 2]
            with av.open(io.BytesIO(data)) as container:
                shapes = [frame.to_ndarray(format="rgb24").shape for frame in container.decode(video=0)]
            assert shapes == [(384, 384, 3)] * 4
        header, data = await client.ask({"type": "save", "format": "json"})
        assert json.loads(data)["codes"] == [0, 1, 2]

    talk(serve(), conversation)


def picture(width: int, height: int, kind: str = ".png") -> bytes:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2] = (0, 0, 255)
    return cv2.imencode(kind, image)[1].tobytes()


@pytest.mark.parametrize("kind", [".png", ".jpg", ".webp", ".bmp"])
def test_any_picture_becomes_a_letterboxed_start(serve, kind):
    running = serve()

    async def conversation(client, hello, first):
        await client.connection.send(json.dumps({"type": "upload", "kind": "image"}))
        header, shown = await client.ask(picture(200, 100, kind))
        assert header["start"] == "your picture"
        letterboxed = np.zeros((16, 16, 3), np.uint8)
        letterboxed[4:12, :8, 0] = 255
        expected = running.player.genie.start(letterboxed).frame.numpy()
        assert np.abs(shown.astype(int) - expected).mean() < 12  # tokens may differ where a codec blurs the edge

    talk(running, conversation)


def test_the_actions_of_a_clip_are_inferred(serve):
    running = serve()
    frames = np.random.default_rng(1).integers(0, 256, (9, 16, 16, 3), np.uint8)
    data = encode_video(frames, "mp4")

    async def conversation(client, hello, first):
        await client.connection.send(json.dumps({"type": "upload", "kind": "clip"}))
        header, _ = await client.ask(data)
        assert header["start"] == "your clip"
        header, _ = await client.answer()
        assert header["type"] == "inferred"
        assert len(header["codes"]) == 8
        assert set(header["codes"]) <= {0, 1, 2, 3}

    talk(running, conversation)


def test_frames_uploads_and_clips_are_shown_at_the_display_size(serve):
    config = tiny_config()
    config.tokenizer.reference = "start"
    genie = random_genie(config)
    running = serve(genie=genie, display=48)

    async def conversation(client, hello, first):
        assert first[1].shape == (48, 48, 3)
        await client.connection.send(json.dumps({"type": "upload", "kind": "image"}))
        _, shown = await client.ask(picture(200, 100))
        letterboxed = np.zeros((48, 48, 3), np.uint8)
        letterboxed[12:36, :24, 0] = 255
        world = genie.start(letterboxed, display=48)
        np.testing.assert_array_equal(shown, world.display.numpy())
        _, shown = await client.ask({"type": "act", "code": 1})
        world.step(1)
        np.testing.assert_array_equal(shown, world.display.numpy())
        assert (await client.ask({"type": "preview"}))[1].shape == (48, 48 * 4, 3)
        await client.connection.send(json.dumps({"type": "upload", "kind": "clip"}))
        frames = np.random.default_rng(1).integers(0, 256, (3, 16, 16, 3), np.uint8)
        assert (await client.ask(encode_video(frames, "mp4")))[1].shape == (48, 48, 3)
        assert (await client.answer())[0]["type"] == "inferred"
        _, data = await client.ask({"type": "save", "format": "gif"})
        with av.open(io.BytesIO(data)) as container:
            assert {(frame.height, frame.width) for frame in container.decode(video=0)} == {(384, 384)}

    talk(running, conversation)


def test_the_trust_of_a_calibrated_world_is_sent(serve):
    genie = random_genie(tiny_config())
    genie.trust_model = TrustModel((0.0,) * 4, (1.0,) * 4, (-1.0, 0.1, 0.0, 0.0), 0.5)
    running = serve(genie=genie)

    async def conversation(client, hello, first):
        world = genie.start(running.player.starts[0].frame)
        assert first[0]["trust"] == round(float(world.trust[0]), 2)
        header, _ = await client.ask({"type": "act", "code": 1})
        world.step(1)
        assert header["trust"] == round(float(world.trust[0]), 2)

    async def plain(client, hello, first):
        assert "trust" not in first[0]

    talk(running, conversation)
    talk(serve(), plain)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header says that it is large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        ("image", b"", "cannot be read as a picture"),
        ("image", b"\x89PNG\r\n\x1a\n" + b"x" * 100, "cannot be read as a picture"),
        ("image", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot be read as a picture"),
        ("image", bomb(60_000, 60_000), "at most|cannot be read as a picture"),
        ("image", b"x" * 6000, "expected at most 5,000"),
        ("clip", b"x" * 100, "not a readable video"),
        (None, b"x", "unexpected binary message"),
    ],
)
def test_uploads_that_are_refused(serve, kind, data, message):
    async def conversation(client, hello, first):
        if kind:
            await client.connection.send(json.dumps({"type": "upload", "kind": kind}))
        header, _ = await client.ask(data)
        assert header["type"] == "error"
        assert re.search(message, header["message"]), header["message"]
        assert (await client.ask({"type": "act", "code": 1}))[0]["step"] == 1  # can still be played

    talk(serve(Limits(upload_bytes=5000)), conversation)


def test_after_malformed_messages_the_world_can_be_played(serve):
    rng = random.Random(0)

    async def conversation(client, hello, first):
        for _ in range(300):
            noise = rng.randbytes(rng.choice((0, 1, 5, 50, 500)))
            header, _ = await client.ask(noise)
            assert header["type"] == "error"
            await client.connection.send(noise.decode(errors="replace"))
            header, _ = await client.answer()
            assert header["type"] == "error"
        assert (await client.ask({"type": "act", "code": 1}))[0]["step"] == 1

    talk(serve(), conversation)


def test_other_sites_and_names_are_refused(serve):
    running = serve(origins=("https://mine.example",))
    assert closed_with(running, origin="https://evil.example") == 4003
    assert closed_with(running, origin="null") == 4003

    async def fine(client, hello, first):
        return hello["type"]

    for origin in (None, running.page, "https://mine.example"):
        assert talk(running, fine, origin=origin) == "hello"
    request = urllib.request.Request(running.page, headers={"Host": "rebound.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request, timeout=10)
    assert hosts("0.0.0.0") == ["*"]
    assert "evil.example" not in hosts("localhost")


def test_the_page_and_nothing_else_is_served(serve):
    running = serve()
    for path, words in (("/", b"<canvas"), ("/player.js", b"WebSocket"), ("/player.css", b"--accent")):
        with urllib.request.urlopen(running.page + path, timeout=10) as answer:
            assert words in answer.read()
            assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    with urllib.request.urlopen(running.page + "/starts/1.png", timeout=10) as answer:
        assert answer.read() == encode_png(running.player.starts[1].frame)
    for path in (
        "/starts/99.png",
        "/../pyproject.toml",
        "/static/page.html",
        "/starts/..%2f..%2fetc%2fpasswd.png",
        "/x",
    ):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(running.page + path, timeout=10)


def test_ten_browsers_play_at_once_and_an_eleventh_is_refused(serve):
    running = serve()
    there, refused = [], None

    async def play(seed):
        async with websockets.connect(running.url) as connection:
            client = Client(connection)
            await client.answer()
            await client.answer()
            there.append(seed)
            await refused.wait()  # all ten stay connected until then
            rng = random.Random(seed)
            codes = [rng.randrange(4) for _ in range(12)]
            return codes, [(await client.ask({"type": "act", "code": code}))[1] for code in codes]

    async def everybody():
        nonlocal refused
        refused = asyncio.Event()
        players = asyncio.gather(*(play(seed) for seed in range(10)))
        while len(there) < 10 and not players.done():
            await asyncio.sleep(0.01)
        code = await asyncio.to_thread(closed_with, running)
        refused.set()
        return code, await players

    eleventh, played = asyncio.run(everybody())
    assert eleventh == 4001
    for codes, frames in played:
        world = running.player.genie.start(running.player.starts[0].frame)
        for code, frame in zip(codes, frames, strict=True):
            np.testing.assert_array_equal(frame, world.step(code).numpy())
    assert running.player.num_sessions == 0


def test_a_killed_browser_frees_its_session(serve):
    running = serve(Limits(sessions=1))

    async def vanish():
        connection = await websockets.connect(running.url)
        await connection.recv()
        await connection.send(json.dumps({"type": "play", "codes": [0, 1] * 50}))
        connection.transport.abort()
        for _ in range(200):
            if not running.player.num_sessions:
                return
            await asyncio.sleep(0.05)

    asyncio.run(vanish())
    assert running.player.num_sessions == 0

    async def fine(client, hello, first):
        return (await client.ask({"type": "act", "code": 0}))[0]["step"]

    assert talk(running, fine) == 1


def test_an_idle_browser_is_disconnected(serve):
    assert closed_with(serve(Limits(idle_seconds=0.3))) == 4002


def test_errors_of_the_command(tmp_path, capsys):
    from genie_robotics.player.commands import PlayOptions

    for argv, message in (
        (["nano-tabletop", "--port", "99999"], "0 .. 65535"),
        (["nowhere"], "nowhere"),
        (["nano-tabletop", "--image", str(tmp_path / "none.png")], "cannot read"),
    ):
        with pytest.raises(UserError, match=message):
            play(argv)
    (tmp_path / "note.txt").write_text("no picture")
    with pytest.raises(UserError, match="cannot be read as a picture"):
        make_player(PlayOptions(run="nano-tabletop", image=tmp_path / "note.txt"))
    player = make_player(PlayOptions(run="nano-tabletop"))
    assert [meaning.name for meaning in player.meanings[:3]] == ["up", "right", "left"]
    assert [start.make_simulator is not None for start in player.starts] == [False] * 8 + [True] * 3
    assert player.display == 256
    assert player.starts[-1].frame.shape == (256, 256, 3)
    with pytest.raises(UserError, match="display must be the shorter side of 64 .. 1024"):
        make_player(PlayOptions(run="nano-tabletop", display=32))
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(UserError, match="is not a report of a world with 8"):
        make_player(PlayOptions(run="nano-tabletop", report=tmp_path / "report.json"))
