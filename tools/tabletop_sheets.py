"""Make the contact sheets of docs/tabletop.md: `python -m tools.tabletop_sheets [FOLDER]`.

tabletop_easy.jpg, tabletop_rt1.jpg    one scene per tile; the last row is at the size of training
tabletop_wild.jpg                      one scene per tile, at the size of training
tabletop_skills.jpg                    one skill per row
tabletop_factors.jpg                   one moment; one redrawn factor per row
tabletop_futures.jpg                   one moment; one future per row
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from genie_datasets.tabletop.render import use_opengl

use_opengl()

from genie_datasets.tabletop import Simulator, redraw, sample_scene  # noqa: E402
from genie_datasets.tabletop.episode import rollout  # noqa: E402
from genie_datasets.tabletop.factors import SWITCHES  # noqa: E402
from genie_datasets.tabletop.skills import SKILLS  # noqa: E402

LARGE, SMALL = (256, 320), (64, 64)
TILE = (160, 200)  # height, width on the sheet
LABEL_WIDTH = 118  # pixels, to the left of a row


def fit(frame: np.ndarray, smooth: bool = True) -> np.ndarray:
    """Resize a frame to the height of a tile."""
    width = round(frame.shape[1] * TILE[0] / frame.shape[0])
    filter_ = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(frame).resize((width, TILE[0]), filter_))


def sheet(rows: list[tuple[str, list[np.ndarray]]]) -> Image.Image:
    """Join rows of tiles, with their names to the left."""
    lines = []
    for name, tiles in rows:
        line = np.concatenate([np.pad(t, ((0, 3), (0, 3), (0, 0)), constant_values=255) for t in tiles], axis=1)
        label = Image.new("RGB", (LABEL_WIDTH if name else 0, len(line)), "white")
        if name:
            ImageDraw.Draw(label).multiline_text((4, 4), name.replace(" ", "\n"), fill="black", font_size=17)
        lines.append(np.concatenate([np.asarray(label), line], axis=1) if name else line)
    width = max(line.shape[1] for line in lines)
    lines = [np.pad(line, ((0, 0), (0, width - line.shape[1]), (0, 0)), constant_values=255) for line in lines]
    return Image.fromarray(np.concatenate(lines))


def scenes(family: str, count: int = 12, columns: int = 6) -> Image.Image:
    """Large frames from the middle of episodes, and below them a row of 64x64 frames."""
    large, small = [], []
    for seed in range(count):
        for size, into in ((LARGE, large), (SMALL, small)):
            sim = Simulator(sample_scene(family, seed), size)
            into.append(fit(rollout(sim, seed, frames=15).frames[-1], smooth=size == LARGE))
            sim.close()
    rows = [("", large[i : i + columns]) for i in range(0, count, columns)]
    return sheet([*rows, ("", small[: columns + columns // 4])])


def looks(columns: int = 8, side: int = 128) -> Image.Image:
    """Frames of 64x64 from the middle of one episode of `wild` per scene."""
    tiles = []
    for seed in range(columns**2):
        sim = Simulator(sample_scene("wild", seed), SMALL)
        frame = Image.fromarray(rollout(sim, seed, frames=15).frames[-1])
        tiles.append(np.asarray(frame.resize((side, side), Image.Resampling.NEAREST)))
        sim.close()
    return sheet([("", tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def skills(columns: int = 7) -> Image.Image:
    """One episode of every skill per row."""
    rows = []
    for name in SKILLS:
        for seed in range(100, 200):
            scene = sample_scene("rt1", seed)
            if "drawer" in name and scene.furniture.layout != "desk":
                continue
            sim = Simulator(scene, LARGE)
            episode = rollout(sim, seed, skill=name)
            sim.close()
            if name == "play" or (episode.skill.startswith(name) and episode.success):
                steps = np.linspace(0, 27, columns).astype(int)
                rows.append((episode.instructions[0], [fit(episode.frames[t]) for t in steps]))
                break
    return sheet(rows)


def factors(columns: int = 6) -> Image.Image:
    """One state, restored in scenes with one redrawn factor per row."""
    scene = sample_scene("rt1", 1)
    sim = Simulator(scene, None)
    state = rollout(sim, 3, skill="pick", frames=12).states[-1]
    rows = []
    for name in SWITCHES:
        tiles = []
        for seed in range(200, 200 + columns):
            twin = Simulator(redraw(scene, name, seed), LARGE)
            if name == "layout":  # the layout changes the physics, so the state cannot be restored
                frame = rollout(twin, 3, skill="pick", frames=12).frames[-1]
            else:
                twin.restore(state)
                twin.step(np.zeros(7))  # the distractor moves at the next step
                frame = twin.observe().frame
            tiles.append(fit(frame))
            twin.close()
        rows.append((name, tiles))
    return sheet(rows)


def futures() -> Image.Image:
    """Futures of six actions from one state, each repeated for four steps."""
    moves = {"right": (1, -1), "left": (1, 1), "forward": (0, 1), "back": (0, -1), "up": (2, 1), "down": (2, -1)}
    sim = Simulator(sample_scene("easy", 3), LARGE)
    episode = rollout(sim, 2, "play")
    middle = np.add(sim.scene.work.low, sim.scene.work.high) / 2
    state = episode.states[np.argmin(np.linalg.norm(episode.position - middle, axis=1))]  # with space on all sides
    actions = np.zeros((len(moves), 4, 7))
    for row, (axis, sign) in enumerate(moves.values()):
        actions[row, :, axis] = 0.045 * sign
    outcome = sim.futures(state, actions)
    sim.restore(state)
    start = fit(sim.observe().frame)
    return sheet([(name, [start, *map(fit, outcome.frames[k])]) for k, name in enumerate(moves)])


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    sheets = {
        "easy": scenes("easy"),
        "rt1": scenes("rt1"),
        "wild": looks(),
        "skills": skills(),
        "factors": factors(),
        "futures": futures(),
    }
    for name, image in sheets.items():
        # Pixels with sharp edges make large files.
        image.save(folder / f"tabletop_{name}.jpg", quality=70 if name == "wild" else 82)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images"))
