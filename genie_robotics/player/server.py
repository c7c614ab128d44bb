"""The page and its connection: one WebSocket a player, one thread that computes for all of them in turn.

To the browser go text messages (JSON) and binary ones: the length of a JSON header as four bytes (big endian), the
header, then the bytes that it describes. A frame's header says which step and action it is of and what it took.
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
from genie_robotics.player import protocol, uploads
from genie_robotics.player.beside import Beside
from genie_robotics.player.limits import Limits
from genie_robotics.player.saving import film, png
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
TOO_MANY, IDLE, FOREIGN = 4001, 4002, 4003  # reasons to close, which the page puts into words


@dataclass
class Player:
    """All that the players share."""

    genie: Genie
    world_name: str
    meanings: list[Meaning]
    starts: list[Start]
    limits: Limits = field(default_factory=Limits)
    origins: tuple[str, ...] = ()
    """Further origins (scheme://host:port) that may connect, beside the address the page came from."""
    num_sessions: int = 0
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "genie"))

    async def compute(self, work: Callable[..., T], *args: Any) -> T:
        """In the one thread that has the model: players take turns, and the connections stay alive meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, work, *args)


def make_app(player: Player, hosts: list[str] | None = None) -> Starlette:
    """Serves the page at / and its connection at /ws. No path that a client names is ever read.

    hosts: names by which the page may be asked for; all without it.
    """

    async def page(request: Request) -> Response:
        name, kind = FILES[request.url.path]
        content = resources.files("genie_robotics.player").joinpath("static", name).read_bytes()
        return Response(content, media_type=kind, headers=HEADERS)

    async def start_picture(request: Request) -> Response:
        number = request.path_params["number"]
        if number >= len(player.starts):
            return PlainTextResponse("there is no such start", 404)
        return Response(png(player.starts[number].frame), media_type="image/png", headers=HEADERS)

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
    """One player, from the first message to the last."""

    def __init__(self, player: Player, socket: WebSocket):
        self.player, self.socket = player, socket
        self.session = PlaySession(player.genie, player.limits)
        self.expected: str | None = None  # kind of upload that was announced

    async def run(self) -> None:
        if not same_origin(self.socket, self.player.origins):
            await self.refuse(FOREIGN, "another site may not play this world")
            return
        if self.player.num_sessions >= self.player.limits.sessions:
            await self.refuse(TOO_MANY, f"{self.player.limits.sessions} others are playing")
            return
        self.player.num_sessions += 1
        try:
            await self.socket.accept()
            await self.say(self.hello())
            await self.handle(protocol.Start(0))
            await self.listen()
        except (WebSocketDisconnect, RuntimeError):
            if self.socket.application_state == WebSocketState.CONNECTED == self.socket.client_state:
                raise  # an error of ours, not a browser that went away
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
                await self.socket.close(IDLE, "nothing was played for a while")
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
            case protocol.Act(code):
                await self.show(session.act, code, code=code)
            case protocol.Play(codes):
                for code in codes:
                    await self.show(session.act, code, code=code)
            case protocol.Undo(steps):
                await self.show(session.undo, steps)
            case protocol.Restart():
                await self.show(session.restart)
            case protocol.Start(number):
                if number >= len(self.player.starts):
                    raise UserError(f"there is no start {number + 1}")
                start = self.player.starts[number]
                beside = None
                if start.simulator is not None:
                    make = start.simulator
                    beside = await compute(lambda: Beside(make(), self.player.meanings))
                await self.show(session.start, start.frame, start.name, beside)
            case protocol.Branch():
                number = session.branch()
                await self.say({"type": "branch", "branch": number, "step": session.num_steps})
            case protocol.Switch(branch):
                await self.show(session.switch, branch)
            case protocol.Preview():
                frames = await compute(session.preview)
                await self.send({"type": "preview", "step": session.num_steps}, png(np.concatenate(frames, axis=1)))
            case protocol.Settings(temperature, maskgit_steps):
                session.settings(temperature, maskgit_steps)
                await self.say({"type": "settings", "temperature": temperature, "maskgit_steps": maskgit_steps})
            case protocol.Save(kind):
                data = json.dumps(session.trace()).encode() if kind == "json" else None
                if data is None:
                    data = await compute(film, session.clip(), kind)
                await self.send({"type": "saved", "format": kind, "trace": session.trace()}, data)
            case protocol.Upload(kind):
                self.expected = kind

    async def uploaded(self, data: bytes) -> None:
        kind, self.expected = self.expected, None
        if kind is None:
            raise UserError("say first what is uploaded")
        limits, config = self.player.limits, self.player.genie.config
        if len(data) > limits.upload_bytes:
            raise UserError(f"the file has {len(data):,} bytes: give one of at most {limits.upload_bytes:,}")
        if kind == "image":
            frame = await self.player.compute(uploads.picture, data, config.image_size, limits)
            await self.show(self.session.start, frame, "a picture of yours")
            return
        frames = await self.player.compute(uploads.clip, data, config.image_size, config.fit, limits)
        codes = await self.player.compute(lambda: self.player.genie.infer_actions(frames[None])[0].tolist())
        await self.show(self.session.start, frames[0], "a clip of yours")
        await self.say({"type": "inferred", "codes": codes})

    async def show(self, work: Callable[..., np.ndarray], *args: Any, code: int | None = None) -> None:
        began = time.perf_counter()
        frame = await self.player.compute(work, *args)
        header = {
            "type": "frame", "step": self.session.num_steps, "code": code, "start": self.session.name,
            "can_undo": len(self.session.moments) - 1, "ms": round(1000 * (time.perf_counter() - began), 1),
        }  # fmt: skip
        if self.session.beside is not None:
            error = await self.player.compute(self.session.error)
            header |= {"beside": True, "error_cm": None if error is None else round(100 * error, 2)}
            frame = np.concatenate([frame, self.session.beside.frame], axis=1)
        await self.send(header, png(frame))

    async def say(self, message: dict[str, Any]) -> None:
        await self.socket.send_text(json.dumps(message))

    async def send(self, header: dict[str, Any], content: bytes) -> None:
        text = json.dumps(header).encode()
        await self.socket.send_bytes(struct.pack(">I", len(text)) + text + content)


def same_origin(socket: WebSocket, also: tuple[str, ...]) -> bool:
    """Whether a page of this server asks, or a program that is no browser: other sites' pages must not reach a player
    that runs on their reader's machine."""
    origin = socket.headers.get("origin")
    if origin is None or origin in also:
        return True
    with contextlib.suppress(ValueError):
        return urlsplit(origin).netloc == socket.headers.get("host") and urlsplit(origin).scheme in ("http", "https")
    return False
