"""The server of the page: one WebSocket per browser, and one thread that computes for all of them in turn.

Messages to the browser are text (JSON) or binary: the length of a JSON header in four bytes (big endian), the header,
and the bytes that it describes. The header of a frame gives its step, its action and the time that it took.
"""

import asyncio
import contextlib
import json
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from genie_datasets.base.errors import UserError
from genie_robotics.genie import Genie
from genie_robotics.labeling.code_meanings import Meaning
from genie_robotics.models.display import display_size
from genie_robotics.player import protocol, uploads
from genie_robotics.player.limits import Limits
from genie_robotics.player.paired_simulator import PairedSimulator
from genie_robotics.player.saving import encode_png, encode_video
from genie_robotics.player.session import PlaySession
from genie_robotics.player.starts import Start

T = TypeVar("T")
FILES = {"/": ("page.html", "text/html"), "/player.js": ("player.js", "text/javascript"),
         "/player.css": ("player.css", "text/css")}  # fmt: skip
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; connect-src 'self'; object-src 'none'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
TOO_MANY, IDLE, FOREIGN = 4001, 4002, 4003  # close codes; player.js has the texts


@dataclass
class Player:
    """State that all connections share: the world, its starts, and the thread that computes."""

    genie: Genie
    world_name: str
    meanings: list[Meaning]
    starts: list[Start]
    limits: Limits = field(default_factory=Limits)
    origins: tuple[str, ...] = ()
    """Further origins (scheme://host:port) that may connect, besides that of the page."""
    display: int | None = None
    """Shorter side of the frames shown, in pixels; None: the model's."""
    num_sessions: int = 0
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "genie"))

    async def compute(self, work: Callable[..., T], *args: Any) -> T:
        """Runs `work` in the thread of the model; sessions take turns, and connections stay alive meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, work, *args)


def make_app(player: Player, hosts: list[str] | None = None) -> Starlette:
    """Serves the page at / and its WebSocket at /ws. No path of a request is ever read from the disk.

    hosts: host names that requests may use; None: all.
    """

    async def page(request: Request) -> Response:
        name, kind = FILES[request.url.path]
        content = resources.files("genie_robotics.player").joinpath("static", name).read_bytes()
        return Response(content, media_type=kind, headers=HEADERS)

    async def start_picture(request: Request) -> Response:
        number = request.path_params["number"]
        if number >= len(player.starts):
            return PlainTextResponse("unknown start", 404)
        return Response(encode_png(player.starts[number].frame), media_type="image/png", headers=HEADERS)

    async def connection(socket: WebSocket) -> None:
        await Connection(player, socket).run()

    return Starlette(
        routes=[
            *(Route(path, page) for path in FILES),
            Route("/starts/{number:int}.png", start_picture),
            WebSocketRoute("/ws", connection),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts or ["*"], www_redirect=False)],
    )


class Connection:
    """One browser, from its first message to its last."""

    def __init__(self, player: Player, socket: WebSocket):
        self.player, self.socket = player, socket
        self.session = PlaySession(player.genie, player.limits, display=player.display)
        self.expected: str | None = None  # kind of the announced upload

    async def run(self) -> None:
        if not same_origin(self.socket, self.player.origins):
            await self.refuse(FOREIGN, "the page of another site")
            return
        if self.player.num_sessions >= self.player.limits.sessions:
            await self.refuse(TOO_MANY, f"all {self.player.limits.sessions} sessions are in use")
            return
        self.player.num_sessions += 1
        try:
            await self.socket.accept()
            await self.say(self.hello())
            await self.handle(protocol.Start(0))
            await self.listen()
        except (WebSocketDisconnect, RuntimeError):
            if self.socket.application_state == WebSocketState.CONNECTED == self.socket.client_state:
                raise  # an error of the server, not a browser that went away
        finally:
            self.player.num_sessions -= 1

    async def refuse(self, code: int, why: str) -> None:
        await self.socket.accept()
        await self.socket.close(code, why)

    async def listen(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self.player.limits.idle_seconds):
                    found = await self.socket.receive()
            except TimeoutError:
                await self.socket.close(IDLE, "idle for too long")
                return
            if found["type"] == "websocket.disconnect":
                return
            try:
                if (data := found.get("bytes")) is not None:
                    await self.uploaded(data)
                else:
                    num_codes = self.player.genie.config.num_actions
                    await self.handle(protocol.parse(found.get("text") or "", num_codes, self.player.limits))
            except UserError as error:
                await self.say({"type": "error", "message": str(error)})

    def hello(self) -> dict[str, Any]:
        dynamics = self.player.genie.config.dynamics
        return {
            "type": "hello",
            "world": self.player.world_name,
            "names": [meaning.name for meaning in self.player.meanings],
            "starts": [start.name for start in self.player.starts],
            "temperature": dynamics.temperature,
            "maskgit_steps": dynamics.maskgit_steps,
            "limits": {"undo": self.player.limits.undo, "upload_bytes": self.player.limits.upload_bytes},
        }

    async def handle(self, message: protocol.Message) -> None:
        session, compute = self.session, self.player.compute
        match message:
            case protocol.Play(codes):
                for code in codes:
                    await self.show(session.act, code, code=code)
            case protocol.Undo(steps):
                await self.show(session.undo, steps)
            case protocol.Restart():
                await self.show(session.restart)
            case protocol.Start(number):
                await self.start(number)
            case protocol.Branch():
                number = session.branch()
                await self.say({"type": "branch", "branch": number, "step": session.num_steps})
            case protocol.Switch(branch):
                await self.show(session.switch, branch)
            case protocol.Preview():
                frames = await compute(session.preview)
                strip = encode_png(np.concatenate(frames, axis=1))
                await self.send({"type": "preview", "step": session.num_steps}, strip)
            case protocol.Settings(temperature, maskgit_steps):
                session.settings(temperature, maskgit_steps)
                await self.say({"type": "settings", "temperature": temperature, "maskgit_steps": maskgit_steps})
            case protocol.Save(kind):
                await self.save(kind)
            case protocol.Upload(kind):
                self.expected = kind

    async def start(self, number: int) -> None:
        if number >= len(self.player.starts):
            raise UserError(f"there is no start {number}; there are {len(self.player.starts)}, counted from 0")
        start, simulator = self.player.starts[number], None
        if make := start.make_simulator:
            simulator = await self.player.compute(lambda: PairedSimulator(make(), self.player.meanings))
        await self.show(self.session.start, start.frame, start.name, simulator)

    async def save(self, kind: str) -> None:
        trace = self.session.trace()
        if kind == "json":
            data = json.dumps(trace).encode()
        else:
            data = await self.player.compute(encode_video, self.session.clip(), kind)
        await self.send({"type": "saved", "format": kind, "trace": trace}, data)

    async def uploaded(self, data: bytes) -> None:
        kind, self.expected = self.expected, None
        if kind is None:
            raise UserError("unexpected binary message; send a message of type 'upload' first")
        limits, config = self.player.limits, self.player.genie.config
        size = config.image_size
        display = display_size(self.player.display, size)
        if len(data) > limits.upload_bytes:
            raise UserError(f"the file has {len(data):,} bytes, expected at most {limits.upload_bytes:,}")
        if kind == "image":
            frame = await self.player.compute(uploads.read_picture, data, size, display, limits)
            await self.show(self.session.start, frame, "your picture")
            return
        frames, first = await self.player.compute(uploads.read_clip, data, size, display, config.fit, limits)
        codes = await self.player.compute(lambda: self.player.genie.infer_actions(frames[None])[0].tolist())
        await self.show(self.session.start, first, "your clip")
        await self.say({"type": "inferred", "codes": codes})

    async def show(self, work: Callable[..., np.ndarray], *args: Any, code: int | None = None) -> None:
        """Computes a frame and sends it, with the simulator's frame to its right if there is one."""
        began = time.perf_counter()
        frame = await self.player.compute(work, *args)
        header = {
            "type": "frame", "step": self.session.num_steps, "code": code, "start": self.session.name,
            "can_undo": len(self.session.moments) - 1, "ms": round(1000 * (time.perf_counter() - began), 1),
        }  # fmt: skip
        if (trust := await self.player.compute(self.session.trust)) is not None:
            header["trust"] = round(trust, 2)
        if self.session.simulator is not None:
            error = await self.player.compute(self.session.error)
            header |= {"simulated": True, "error_cm": None if error is None else round(100 * error, 2)}
            frame = np.concatenate([frame, self.session.simulator.frame], axis=1)
        await self.send(header, encode_png(frame))

    async def say(self, message: dict[str, Any]) -> None:
        await self.socket.send_text(json.dumps(message))

    async def send(self, header: dict[str, Any], content: bytes) -> None:
        text = json.dumps(header).encode()
        await self.socket.send_bytes(struct.pack(">I", len(text)) + text + content)


def same_origin(socket: WebSocket, others: tuple[str, ...]) -> bool:
    """True for a page of this server, of an origin in `others`, or a program that is not a browser.

    Pages of other sites must not reach a player that runs on the machine of their reader.
    """
    origin = socket.headers.get("origin")
    if origin is None or origin in others:
        return True
    with contextlib.suppress(ValueError):
        return urlsplit(origin).netloc == socket.headers.get("host") and urlsplit(origin).scheme in ("http", "https")
    return False
