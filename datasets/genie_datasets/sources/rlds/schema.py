"""Reads `features.json` of a TFDS data set, and finds the features that hold the camera and the instruction."""

import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path

from genie_datasets.base.errors import UserError
from genie_datasets.base.notes import warn

PREFERRED_IMAGES = ("image", "image_0", "rgb", "rgb_static")
INSTRUCTIONS = (
    "steps/observation/natural_language_instruction",
    "steps/language_instruction",
    "steps/observation/instruction",
    "steps/instruction",
)
STEP_KEYS = ("steps/is_first", "steps/is_last", "steps/is_terminal")


@dataclass(frozen=True)
class Feature:
    """One leaf of features.json."""

    kind: str  # "image", "text", "tensor" or another type; "several" if a step has several
    shape: tuple[int, ...] = ()
    dtype: str = ""
    encoding: str = "none"


def read_schema_file(path: Path) -> dict[str, Feature]:
    """`read_schema` of a file. Raises UserError."""
    try:
        return read_schema(path.read_text(encoding="utf-8-sig"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a TFDS features.json ({error}): copy it again from the data set") from None


def read_schema(text: str, where: str) -> dict[str, Feature]:
    """The features of a features.json by path, such as "steps/observation/image". Raises UserError."""
    try:
        root = json.loads(text)
        leaves = dict(_leaves(root, "", False))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where} is not a TFDS features.json ({error}): copy it again from the data set") from None
    if not any(path.startswith("steps/") for path in leaves):
        raise UserError(
            f"{where} describes no RLDS episodes (no feature 'steps', only {_listing(leaves)}): choose a data set of "
            "episodes"
        )
    return leaves


def _leaves(node: dict, path: str, in_steps: bool):
    if "featuresDict" in node:
        for name, child in node["featuresDict"].get("features", {}).items():
            yield from _leaves(child, f"{path}/{name}" if path else name, in_steps)
    elif inner := node.get("sequence") or node.get("dataset"):
        if in_steps:  # a list in a step, such as a history of images
            for below, feature in _leaves(inner["feature"], path, in_steps):
                yield below, replace(feature, kind="several")
        else:
            yield from _leaves(inner["feature"], path, in_steps=path == "steps")
    else:
        kind = next((k for k in ("image", "text", "tensor") if k in node), node["pythonClassName"].split(".")[-1])
        spec = node.get(kind) or {}
        shape = tuple(int(d) for d in (spec.get("shape") or {}).get("dimensions", ()))
        yield path, Feature(kind, shape, spec.get("dtype", ""), spec.get("encoding", "none"))


def why_no_image(feature: Feature) -> str:
    """The type and channels of a feature from which frames cannot be read; empty for a camera."""
    channels = feature.shape[-1] if len(feature.shape) == 3 else None
    listed = f"{feature.dtype or 'an unknown type'}, {channels if channels is not None else 'unknown'} channels"
    if feature.kind == "several":
        return f"several per step, {listed}"
    if feature.kind != "image":
        return f"not an encoded image but a {feature.kind}, {feature.dtype or 'unknown type'} {feature.shape}"
    if feature.dtype not in ("uint8", "") or channels not in (1, 3, 4, -1, 0, None):
        return listed
    return ""


def find_image_key(schema: dict[str, Feature], asked: str | None, where: str, likely: str | None = None) -> str:
    """The feature that holds the frames of the camera: uint8 images of 1, 3 or 4 channels.

    asked: its name or its whole path. likely: its name in the catalog. Without `asked`, the most likely feature is
    taken, with a note about the others. Raises UserError.
    """
    steps = {path: feature for path, feature in schema.items() if path.startswith("steps/")}
    images = [path for path, feature in steps.items() if not why_no_image(feature)]
    pictures = {path: feature for path, feature in steps.items() if feature.kind in ("image", "several")}
    unfit = "; ".join(f"{path} is {why}" for path, feature in pictures.items() if (why := why_no_image(feature)))
    if asked is not None:
        found = [path for path in steps if path == asked or path.endswith("/" + asked)]
        remedy = f"pass one of its image features, {_listing(images)}"
        if len(found) != 1:
            raise UserError(f"{where} has no image feature '{asked}': {remedy}")
        if why := why_no_image(steps[found[0]]):
            raise UserError(
                f"{where}: '{found[0]}' cannot be read as frames ({why}); expected uint8 images of 1, 3 or 4 channels; "
                f"{remedy}"
            )
        return found[0]
    if not images:
        why = f" to read: {unfit}" if unfit else f"; its keys are {_listing(schema)}"
        raise UserError(
            f"{where} has no image feature{why}; expected uint8 images of 1, 3 or 4 channels, one per step; choose a "
            "data set with such a camera"
        )
    chosen = _most_likely(images, schema, likely)
    if chosen is None:
        raise UserError(f"{where} has several image features, {_listing(images)}: choose one with --image-key")
    others = [path for path in images if path != chosen]
    if others:
        warn(f"{where}: reading '{chosen}'; --image-key chooses another camera ({_listing(others)})")
    return chosen


def _most_likely(images: list[str], schema: dict[str, Feature], likely: str | None) -> str | None:
    named = (path for name in (likely, *PREFERRED_IMAGES) if name for path in images if path.endswith("/" + name))
    color = [path for path in images if len(schema[path].shape) == 3 and schema[path].shape[-1] in (3, 4)]
    only = images if len(images) == 1 else color if len(color) == 1 else []
    return next(itertools.chain(named, only), None)


def find_step_key(schema: dict[str, Feature]) -> str:
    """A feature with one whole number per step, by which steps are counted; empty without one."""
    return next((key for key in STEP_KEYS if key in schema and schema[key].dtype in ("bool", "int32", "int64")), "")


def find_instruction_key(schema: dict[str, Feature]) -> str | None:
    """The feature that holds the instruction, a text or a row of character codes; or None."""
    present = {path: schema[path] for path in INSTRUCTIONS if path in schema}
    types = ("string", "int", "uint")
    return next((path for path, f in present.items() if f.kind == "text" or f.dtype.startswith(types)), None)


def _listing(paths) -> str:
    return ", ".join(sorted(paths)) or "none"
