"""`genie-robotics play RUN`: play a world in the browser."""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from genie_datasets.base.command_help import Option
from genie_datasets.base.command_line import parse
from genie_datasets.base.errors import UserError
from genie_datasets.sources.options import SourceOptions
from genie_robotics.player.limits import Limits

if TYPE_CHECKING:
    from genie_robotics.player.server import Player

DEFAULT_TABLES = 3
DEFAULT_DISPLAY = 256  # pixels


@dataclass
class PlayOptions(SourceOptions):
    """Play a world in the browser, one latent action at a time."""

    run: tyro.conf.Positional[str] = tyro.MISSING
    """Run folder, or the name of a world that comes with the package (nano-tabletop)."""
    image: Path | None = None
    """Picture to start from."""
    data: Annotated[str | None, Option("SRC")] = None
    """Data set whose frames are offered as starts."""
    tables: int | None = None
    """Simulated tables offered as starts (default: 3 if the world was trained on the simulated tabletop)."""
    report: Path | None = None
    """report.json that names the actions (default: one next to the run)."""
    display: Annotated[int | None, Option("PIXELS")] = None
    """Shorter side of the frames shown (default: 256, or the model's if that is larger)."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 lets other machines connect."""
    port: int = 8000
    """Port to listen at."""
    origins: Annotated[tuple[str, ...], Option("URL ...")] = ()
    """Further web origins that may connect, such as https://example.org in front of a proxy."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on."""
    compile: bool = False
    """Compile the model first (10 to 60 s, later starts 10 s); a frame then takes about three quarters of the time."""
    limits: Annotated[Limits, tyro.conf.arg(name="limits")] = field(default_factory=Limits)


def play(argv: list[str]) -> int:
    """Entry point of `genie-robotics play`."""
    options = parse(PlayOptions, argv, prog="genie-robotics play", example="play nano-tabletop")
    if not 0 <= options.port <= 65535:
        raise UserError(f"--port must be 0 .. 65535, got {options.port}")
    try:
        import uvicorn

        from genie_robotics.player.server import make_app
    except ModuleNotFoundError as error:
        raise UserError(
            f"play needs {error.name}, which is not installed; run pip install 'genie_robotics[player]'"
        ) from None
    player = make_player(options)
    app = make_app(player, hosts(options.host))
    print(f"playing {options.run}: open http://{shown_host(options.host)}:{options.port}   (Ctrl-C ends)")
    config = uvicorn.Config(
        app, host=options.host, port=options.port, log_level="warning", ws_max_size=options.limits.upload_bytes + 1024,
        ws_per_message_deflate=False, timeout_graceful_shutdown=2,
    )  # fmt: skip
    try:
        uvicorn.Server(config).run()
    except SystemExit:  # uvicorn could not listen, and has logged why
        raise UserError(f"cannot listen at {options.host}:{options.port}; choose another --port") from None
    except KeyboardInterrupt:
        pass
    return 0


def make_player(options: PlayOptions) -> "Player":
    """Loads the world and its starts; raises UserError."""
    import torch

    from genie_robotics.genie import Genie
    from genie_robotics.labeling.code_meanings import code_meanings
    from genie_robotics.models.display import display_size
    from genie_robotics.player.server import Player
    from genie_robotics.player.starts import make_starts
    from genie_robotics.pretrained import locate

    run = locate(options.run)
    device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    genie = Genie.from_pretrained(run, device)
    config = genie.config
    short = max(DEFAULT_DISPLAY, min(config.image_size)) if options.display is None else options.display
    display = display_size(short, config.image_size)
    if options.compile:
        print("compiling the model ...", flush=True)
        genie.compile_dreams()
    source = options.open(options.data) if options.data else None
    meanings = code_meanings(run, config.num_actions, options.report)
    tables = options.tables
    if tables is None:
        tables = DEFAULT_TABLES if knows_tabletop(run) and options.image is None else 0
    if tables and all(meaning.motion is None for meaning in meanings):
        if options.tables:
            raise UserError(
                "--tables needs the measured motion of each latent action, and this world has no report with it; run "
                "`genie-robotics evaluate` on data that records the robot's motion, and pass its report as --report"
            )
        tables = 0
    starts = make_starts(config.image_size, display, config.fit, options.image, source, options.limits, tables)
    return Player(genie, Path(options.run).name, meanings, starts, options.limits, options.origins, short)


def knows_tabletop(run: Path) -> bool:
    """True if the world was trained on the simulated tabletop."""
    from genie_robotics.models.config import read_json

    stored = read_json(run / "config.json")
    data = stored.get("data") or (stored.get("exported") or {}).get("data") or {}
    return run.name == "nano_tabletop" or "/tabletop/" in f"{data.get('source', '')}/"


def hosts(host: str) -> list[str]:
    """Host names that requests may use.

    On a loopback address these are its own names only; otherwise a foreign page could reach the player through a name
    that it controls (DNS rebinding).
    """
    try:
        is_local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = False
    return ["localhost", "127.0.0.1", "[::1]", host] if is_local else ["*"]


def shown_host(host: str) -> str:
    return "localhost" if host in ("0.0.0.0", "::", "127.0.0.1") else host
