"""`genie-robotics play RUN`: the world in a browser."""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_datasets.sources.options import SourceOptions
from genie_robotics.player.limits import Limits

TABLES = 3


@dataclass
class PlayOptions(SourceOptions):
    """Play a world in the browser: a start, then one latent action at a time."""

    run: tyro.conf.Positional[str] = tyro.MISSING
    """A run folder, or the name of a world that comes with the package (nano-tabletop)."""
    tables: int | None = None
    """Simulated tables among the starts, each played beside the dream; 3 of a world that knows the tabletop."""
    image: Path | None = None
    """A picture to start from."""
    data: str | None = None
    """A data set whose frames are starts."""
    report: Path | None = None
    """report.json that names the actions; found by itself beside a run that was evaluated."""
    host: str = "127.0.0.1"
    """Address to listen at. Others than this machine reach the player only through another one, such as 0.0.0.0."""
    port: int = 8000
    origins: tuple[str, ...] = ()
    """Further web origins that may connect, such as https://example.org behind a proxy."""
    device: str = "auto"
    """auto, cpu or cuda."""
    limits: Annotated[Limits, tyro.conf.arg(name="limits")] = field(default_factory=Limits)


def play(argv: list[str]) -> int:
    """Entry point of `genie-robotics play`."""
    options = parse(PlayOptions, argv, prog="genie-robotics play")
    if not 0 <= options.port <= 65535:
        raise UserError(f"--port {options.port}: a port is 0 .. 65535")
    try:
        import uvicorn

        from genie_robotics.player.server import make_app
    except ModuleNotFoundError as error:
        raise UserError(f"the player needs {error.name}: pip install 'genie_robotics[player]'") from None
    player = make_player(options)
    app = make_app(player, hosts(options.host))
    print(f"playing {options.run}: open http://{shown_host(options.host)}:{options.port}   (Ctrl-C ends)")
    config = uvicorn.Config(
        app, host=options.host, port=options.port, log_level="warning", ws_max_size=options.limits.upload_bytes + 1024,
        ws_per_message_deflate=False, timeout_graceful_shutdown=2,
    )  # fmt: skip
    try:
        uvicorn.Server(config).run()
    except SystemExit:  # uvicorn's way to say that it could not listen, after it logged why
        raise UserError(
            f"cannot listen at {options.host}:{options.port}: is another player there? choose another --port"
        ) from None
    except KeyboardInterrupt:
        pass
    return 0


def make_player(options: PlayOptions):
    """The shared part of all players. Raises UserError."""
    import torch

    from genie_robotics.genie import Genie
    from genie_robotics.labeling.code_meanings import code_meanings
    from genie_robotics.player.server import Player
    from genie_robotics.player.starts import choose
    from genie_robotics.pretrained import locate

    run = locate(options.run)
    if options.device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {options.device}: auto, cpu or cuda")
    device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    genie = Genie.from_pretrained(run, device)
    config = genie.config
    source = options.open(options.data) if options.data else None
    meanings = code_meanings(run, config.num_actions, options.report)
    tables = options.tables
    if tables is None:
        tables = TABLES if knows_tabletop(run) and options.image is None else 0
    if tables and all(meaning.motion is None for meaning in meanings):
        if options.tables:
            raise UserError("--tables: what a code moves is not known, so it cannot be simulated; give --report")
        tables = 0
    starts = choose(config.image_size, config.fit, options.image, source, options.limits, tables)
    return Player(genie, Path(options.run).name, meanings, starts, options.limits, options.origins)


def knows_tabletop(run: Path) -> bool:
    """Whether the world was trained on the simulated table."""
    from genie_robotics.models.config import read_json

    stored = read_json(run / "config.json")
    data = stored.get("data") or (stored.get("exported") or {}).get("data") or {}
    return run.name == "nano_tabletop" or "/tabletop/" in f"{data.get('source', '')}/"


def hosts(host: str) -> list[str]:
    """Names by which a browser may ask for the page. Of a player on this machine only its own, or a foreign page
    could reach it through a name that it controls (DNS rebinding)."""
    try:
        is_local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = False
    return ["localhost", "127.0.0.1", "[::1]", host] if is_local else ["*"]


def shown_host(host: str) -> str:
    return "localhost" if host in ("0.0.0.0", "::", "127.0.0.1") else host
