"""Animated dreams next to the truth: the worst ones and random ones, never picked by hand."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from genie_eval.dreams.generation import DreamSet
from genie_eval.dreams.pixels import decibel, moving_error, moving_pixels

SHOWN = 10  # dreams in one animation
FRAME_MS, LAST_MS = 333, 1000  # 3 frames per second; the last one is held
MIN_SIDE, MAX_SIDE = 96, 128  # pixels of one picture in the animation
GAP, HEAD = 3, 14  # pixels between pictures, and above them
COLORS = 128  # of one animation


def moving_psnr(dreams: DreamSet) -> Float[np.ndarray, " C"]:
    """PSNR of each dream over all pixels that differ from the prompt in the truth; NaN if none does."""
    truth = dreams.truth[:, 1:]
    prompt = np.broadcast_to(dreams.truth[:, :1], truth.shape)
    moved = moving_pixels(truth, prompt)
    area = moved.sum(axis=(-2, -1))
    error = (np.nan_to_num(moving_error(dreams.inferred, truth, moved)) * area).sum(axis=1)
    count = area.sum(axis=1)
    return np.where(count > 0, decibel(error / np.maximum(count, 1)), np.nan)


def worst(quality: Float[np.ndarray, " C"], number: int = SHOWN) -> Int[np.ndarray, " n"]:
    """The clips with the lowest quality, worst first, without those that have none."""
    order = np.argsort(np.where(np.isfinite(quality), quality, np.inf), kind="stable")
    return order[: min(number, int(np.isfinite(quality).sum()))]


def by_chance(clips: int, seed: int, number: int = SHOWN) -> Int[np.ndarray, " n"]:
    return np.sort(np.random.default_rng(seed + 11).choice(clips, min(number, clips), replace=False))


def dream_gif(path: Path, dreams: DreamSet, chosen: Int[np.ndarray, " n"], quality: Float[np.ndarray, " C"]) -> None:
    """Writes truth | tokenizer | dream of every chosen clip, in two columns, 3 frames per second."""
    from PIL import Image

    cells = [_clip(dreams, int(c), float(quality[c])) for c in chosen]  # each (n+1, h, w, 3)
    if len(cells) % 2 and len(cells) > 1:
        cells.append(np.full_like(cells[0], 255))
    across = min(2, len(cells))
    rows = [np.concatenate(cells[i : i + across], axis=2) for i in range(0, len(cells), across)]
    frames = [Image.fromarray(frame) for frame in np.concatenate(rows, axis=1)]
    # one palette for all frames: colors do not flicker, and static pixels cost nothing
    sample = np.concatenate([np.asarray(frames[0]), np.asarray(frames[-1])])
    palette = Image.fromarray(sample).quantize(COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    packed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    path.parent.mkdir(parents=True, exist_ok=True)
    packed[0].save(
        path, save_all=True, append_images=packed[1:], loop=0,
        duration=[FRAME_MS] * (len(packed) - 1) + [LAST_MS],
    )  # fmt: skip


def _clip(dreams: DreamSet, c: int, quality: float) -> UInt8[np.ndarray, "t h w 3"]:
    truth, rebuilt = dreams.truth[c], dreams.reconstructed[c]
    dreamt = np.concatenate([truth[:1], dreams.inferred[c]])
    frames = []
    for t in range(len(truth)):
        strip = [_enlarged(picture[t]) for picture in (truth, rebuilt, dreamt)]
        height, width = strip[0].shape[:2]
        canvas = np.full((HEAD + height + GAP, 3 * (width + GAP) + 3 * GAP, 3), 255, np.uint8)
        for n, picture in enumerate(strip):
            left = n * (width + GAP)
            canvas[HEAD : HEAD + height, left : left + width] = picture
        frames.append(_labeled(canvas, width, c, quality, t))
    return np.stack(frames)


def _labeled(canvas: np.ndarray, width: int, c: int, quality: float, t: int) -> np.ndarray:
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(canvas)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=10)
    score = f"{quality:.0f} dB" if np.isfinite(quality) else "no motion"
    for n, words in enumerate((f"clip {c}, t = {t}", "tokenizer", f"dream, {score}")):
        pen.text((n * (width + GAP), 0), words, fill=(31, 41, 51), font=font)
    return np.asarray(image)


def _enlarged(frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Enlarges small frames by an integer factor and reduces large ones."""
    import cv2

    height, width = frame.shape[:2]
    if max(height, width) > MAX_SIDE:
        scale = MAX_SIDE / max(height, width)
        return cv2.resize(frame, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    factor = max(1, -(-MIN_SIDE // max(height, width)))
    return np.repeat(np.repeat(frame, factor, axis=0), factor, axis=1)


def animations(folder: Path, dreams: DreamSet, seed: int) -> list[dict[str, str]]:
    """Writes worst.gif and random.gif; {"file" (relative to the report's folder), "title", "caption"} of each."""
    quality = moving_psnr(dreams)
    found: list[dict[str, str]] = []
    below = (
        "Each group: truth, the tokenizer's reconstruction (best possible dream), and the dream from the first frame "
        "with inferred codes; dB: PSNR of the dream on the pixels that move in the truth, higher is better."
    )
    for name, title, chosen, how in (
        (
            "worst", "The worst dreams", worst(quality),
            f"The {{n}} of {len(quality)} dreams with the lowest PSNR on moving pixels, worst first. Typical failures: "
            "an arm in the wrong place, blur, objects that vanish.",
        ),
        (
            "random", "Random dreams", by_chance(len(quality), seed),
            f"{{n}} of {len(quality)} dreams, drawn at random with the seed: what to expect.",
        ),
    ):  # fmt: skip
        if len(chosen):
            dream_gif(folder / f"{name}.gif", dreams, chosen, quality)
            caption = f"{how.format(n=len(chosen))} {below}"
            found.append({"file": f"figures/{name}.gif", "title": title, "caption": caption})
    return found
