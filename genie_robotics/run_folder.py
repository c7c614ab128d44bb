"""Run folders: RUN/config.json, RUN/{component}/{config.json, model.safetensors}, and RUN/state while training.

Worlds that come with the package (genie_robotics.pretrained) have the same form: their config.json has an entry
`exported`, and `components` if not all three are there; a component's config.json says `has_decoder: false` if its
decoder was left out.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from genie_datasets.base.errors import UserError
from genie_datasets.base.file_lock import file_lock
from genie_datasets.base.files import write_atomically
from genie_robotics.models.config import GenieConfig, from_dict, read_json, to_dict

SCHEMA_VERSION = 2
"""Version of the form of a run folder. Folders of another version are refused."""
DIGEST = "genie_robotics.sha256"
"""Entry of a safetensors file's metadata; the only one, because safetensors writes several in random order."""


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Holds the lock RUN/state/lock, so that one process at a time trains a run. It is released when its holder ends.

    Raises:
        UserError: another process is training this run, or the folder cannot be written.
    """
    path = run / "state" / "lock"
    with contextlib.ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(file_lock(path, wait=False))
        except BlockingIOError:
            raise UserError(
                f"another process is already training {run}; wait until it ends, or choose another folder"
            ) from None
        except OSError as error:
            raise UserError(
                f"cannot write into the run folder {run}: {error.strerror}; choose another folder"
            ) from None
        yield


def package_version(name: str = "genie-robotics") -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # running from a checkout that is not installed
        return "not installed"


def save_config(config: GenieConfig, run: Path, **more: Any) -> None:
    """Writes RUN/config.json; more: further entries, such as the options of the training."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "model": to_dict(config),
        "packages": {name: package_version(name) for name in ("genie-robotics", "torch", "numpy")},
        **more,
    }
    write_atomically(run / "config.json", json.dumps(content, indent=1).encode())


def load_config(run: Path) -> GenieConfig:
    """The model's configuration; raises UserError if the folder is not a run, or has another schema version."""
    path = run / "config.json"
    values = read_json(path)
    if "model" not in values:
        raise UserError(f"{path} has no entry 'model'; expected a run folder of genie-robotics")
    found = values.get("schema_version", 1)
    if found != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {found}, expected {SCHEMA_VERSION}; retrain the run, or read it with the "
            "version of genie-robotics that wrote it"
        )
    return from_dict(GenieConfig, values["model"], str(path)).resolved()


def save_component(
    part: Any,
    folder: Path,
    dtype: torch.dtype | None = None,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Writes the weights of a component, with their digest, and its configuration into the folder RUN/NAME.

    Args:
        dtype: type in which floating-point tensors are stored (see `in_range`); loading converts them back.
        weights: the complete weights, if `part` is sharded across ranks.
    """
    weights = on_cpu(part) if weights is None else weights
    tensors = {key: in_range(value, dtype) for key, value in weights.items()}
    write_atomically(folder / "model.safetensors", save(tensors, {DIGEST: digest(tensors)}))
    config = to_dict(part.config)
    if not getattr(part, "has_decoder", True):
        config["has_decoder"] = False
    write_atomically(folder / "config.json", json.dumps(config, indent=1).encode())


class Difference(NamedTuple):
    """A field in which a stored component has another value than expected."""

    field: str
    stored: Any
    expected: Any


def difference(part: Any, folder: Path, free: Collection[str] = ()) -> Difference | None:
    """The first field in which the component in the folder RUN/NAME differs from `part`, besides those in `free`."""
    path = folder / "config.json"
    values = read_json(path)
    if hasattr(part, "has_decoder"):
        values.pop("has_decoder", None)
    stored, expected = to_plain(from_dict(type(part.config), values, str(path))), to_plain(part.config)
    for name in sorted({*stored, *expected} - {*free}):
        if stored.get(name) != expected.get(name):
            return Difference(name, stored.get(name), expected.get(name))
    return None


def load_component(part: Any, folder: Path, free: Collection[str] = ()) -> None:
    """Loads the weights in the folder RUN/NAME into a component, strictly.

    Args:
        free: fields of the configuration that may differ from the stored ones.

    Raises:
        UserError: the component is missing, damaged, or was trained with another configuration.
    """
    different = difference(part, folder, free)
    if different is not None:
        raise UserError(
            f"{folder} was trained with {different.field}={different.stored}, but {folder.parent / 'config.json'} "
            f"expects {different.expected}; copy a {folder.name} of that configuration into {folder}, or retrain it"
        )
    has_decoder = read_json(folder / "config.json").get("has_decoder", True)
    path = folder / "model.safetensors"
    try:
        tensors = read_tensors(path)
        if hasattr(part, "has_decoder") and not has_decoder:
            part.drop_decoder()
        part.load_state_dict(tensors)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; rerun the train command, which writes it") from None
    except (SafetensorError, RuntimeError) as error:
        raise UserError(
            f"{path} is damaged or does not fit its configuration ({first_line(error)}); "
            "restore it, or delete it and rerun the train command, which writes it from the last checkpoint"
        ) from None


def first_line(error: Exception) -> str:
    """The first line of an error message, at most 200 characters, to quote in another message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def on_cpu(part: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state of a module as contiguous tensors on the CPU."""
    return {k: v.detach().cpu().contiguous() for k, v in part.state_dict().items()}


def in_range(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """A floating-point tensor as `dtype`, unless that would make a number infinite; other tensors unchanged."""
    if dtype is None or not tensor.is_floating_point():
        return tensor
    rounded = tensor.to(dtype)
    return rounded if torch.equal(rounded.isfinite(), tensor.isfinite()) else tensor


def to_plain(config: Any) -> dict[str, Any]:
    """A configuration as JSON gives it back: tuples become lists."""
    return json.loads(json.dumps(to_dict(config)))


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 (hexadecimal) of names, dtypes, shapes and bytes, sorted by name; tensors as `on_cpu` gives them."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode() + b"\n")
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, compared with the digest in its metadata if it has one.

    Raises:
        UserError: the tensors are not those that were written.
        SafetensorError, OSError: the file cannot be read.
    """
    tensors = load_file(path)
    with open(path, "rb") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
    metadata: dict[str, str] = json.loads(header).get("__metadata__") or {}
    if not metadata:
        return tensors  # not written by this package
    found = digest(tensors)
    if DIGEST in metadata:  # the digest does not cover the padding after the header
        intact = metadata[DIGEST] == found and header.rstrip(b" ").endswith(b"}")
    else:
        intact = found not in metadata.values()  # otherwise damage has renamed the entry DIGEST
    if not intact:
        raise UserError(
            f"{path} is damaged (the SHA-256 of its tensors is another); "
            "delete it and rerun the train command, which writes it from the last checkpoint"
        )
    return tensors


def first_difference(a: Any, b: Any, free: tuple[str, ...] = (), prefix: str = "") -> str | None:
    """The first field in which two configurations of one class differ, as 'name: x / y', or None.

    Args:
        free: full names of fields that may differ.
        prefix: of the fields' full names.
    """
    for field in dataclasses.fields(a):
        name = f"{prefix}{field.name}"
        x, y = getattr(a, field.name), getattr(b, field.name)
        if name in free:
            continue
        if dataclasses.is_dataclass(x):
            found = first_difference(x, y, free, f"{name}.")
            if found:
                return found
        elif x != y:
            return f"{name}: {x} / {y}"
    return None


def is_exported(folder: Path) -> bool:
    """True if a run folder is an exported world, which cannot be trained further."""
    path = folder / "config.json"
    return path.is_file() and "exported" in read_json(path)
