"""What a TFDS data set's `features.json` says: which feature is the camera, which the instruction, which the truth."""

import json
from dataclasses import dataclass
from pathlib import Path

from genie_datasets.errors import UserError

PREFERRED_IMAGES = ("image", "image_0", "rgb", "rgb_static")
INSTRUCTIONS = (
    "steps/observation/natural_language_instruction",
    "steps/language_instruction",
    "steps/observation/instruction",
    "steps/instruction",
)


@dataclass(frozen=True)
class Feature:
    """One leaf of features.json."""

    kind: str  # "image", "text", "tensor" or what else the file calls it
    shape: tuple[int, ...] = ()
    dtype: str = ""
    encoding: str = "none"


def read_schema_file(path: Path) -> dict[str, Feature]:
    """`read_schema` of a file; raises UserError."""
    try:
        return read_schema(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a TFDS features.json ({error}): copy it again from the data set") from None


def read_schema(text: str, where: str) -> dict[str, Feature]:
    """features.json -> {"steps/observation/image": Feature, ...}; raises UserError when it is not one."""
    try:
        root = json.loads(text)
        leaves = dict(_leaves(root, ""))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where} is not a TFDS features.json ({error}): copy it again from the data set") from None
    if not any(path.startswith("steps/") for path in leaves):
        raise UserError(
            f"{where} describes no RLDS episodes (no feature 'steps', only {_listing(leaves)}): "
            "give a data set of episodes"
        )
    return leaves


def _leaves(node: dict, path: str):
    if "featuresDict" in node:
        for name, child in node["featuresDict"].get("features", {}).items():
            yield from _leaves(child, f"{path}/{name}" if path else name)
    elif inner := node.get("sequence") or node.get("dataset"):
        yield from _leaves(inner["feature"], path)
    else:
        kind = next((k for k in ("image", "text", "tensor") if k in node), node["pythonClassName"].split(".")[-1])
        spec = node.get(kind) or {}
        shape = tuple(int(d) for d in (spec.get("shape") or {}).get("dimensions", ()))
        yield path, Feature(kind, shape, spec.get("dtype", ""), spec.get("encoding", "none"))


def find_image_key(schema: dict[str, Feature], asked: str | None, where: str, likely: str | None = None) -> str:
    """The feature that holds the camera's frames; `asked` may be its last name or its whole path, `likely` is its last
    name as far as it is known of this data set."""
    images = [path for path, feature in schema.items() if feature.kind == "image" and path.startswith("steps/")]
    if asked is not None:
        found = [path for path in images if path == asked or path.endswith("/" + asked)]
        if len(found) != 1:
            raise UserError(f"{where} has no image feature '{asked}': its image features are {_listing(images)}")
        return found[0]
    for name in (*([likely] if likely else []), *PREFERRED_IMAGES):
        for path in images:
            if path.endswith("/" + name):
                return path
    if len(images) == 1:
        return images[0]
    if images:
        raise UserError(f"{where} has several image features, {_listing(images)}: choose one with --image-key")
    raise UserError(f"{where} has no image feature; its keys are {_listing(schema)}: give a data set with a camera")


def find_instruction_key(schema: dict[str, Feature]) -> str | None:
    return next((path for path in INSTRUCTIONS if path in schema), None)


def _listing(paths) -> str:
    return ", ".join(sorted(paths)) or "none"
