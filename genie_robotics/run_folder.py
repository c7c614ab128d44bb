"""What a run folder holds (DESIGN section 6): config.json and {component}/{config.json, model.safetensors}.

Exported worlds (genie_robotics.pretrained) have the same form, with less in it. config.json has an entry `exported`,
and `components` where not all three are there; a component's config.json says `parts: encoder` where its decoder is
left out.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from genie_datasets.base.errors import UserError
from genie_robotics.models.config import GenieConfig, from_dict, read_json, to_dict
from genie_robotics.models.left_out import drop_decoder, has_decoder

DIGEST = "genie_robotics.sha256"
"""Entry of a safetensors file's metadata; the only one, because safetensors writes several in any order."""


def write_atomically(path: Path, content: bytes) -> None:
    """Writes beside `path`, then renames: a kill or a full disk leaves the old file whole."""
    partial = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path}: {error.strerror}; the last good file is kept, free space or move"
        ) from None


def sync_folder(folder: Path) -> None:
    """Makes what was made, renamed or removed in a folder survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def package_versions() -> dict[str, str]:
    found = {}
    for name in ("genie-robotics", "torch", "numpy", "vector-quantize-pytorch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # running from a checkout that is not installed
            found[name] = "not installed"
    return found


def save_config(config: GenieConfig, run: Path, **more: Any) -> None:
    """`more` (training options, data) is stored beside the model's configuration."""
    content = {"model": to_dict(config), "packages": package_versions(), **more}
    write_atomically(run / "config.json", json.dumps(content, indent=1).encode())


def load_config(run: Path) -> GenieConfig:
    path = run / "config.json"
    values = read_json(path)
    if "model" not in values:
        raise UserError(f"{path} has no entry 'model'; it is not a run of genie-robotics")
    return from_dict(GenieConfig, values["model"], str(path)).resolved()


def save_component(
    part: Any,
    folder: Path,
    dtype: torch.dtype | None = None,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Writes one component's weights, with their digest, and its configuration into RUN/NAME.

    weights: its whole state, where `part` holds a shard of it.
    dtype: what fractional numbers are stored as; a tensor that leaves its range stays as it is. Loading turns them
        back into the model's own.
    """
    weights = on_cpu(part) if weights is None else weights
    tensors = {key: in_range(value, dtype) for key, value in weights.items()}
    write_atomically(folder / "model.safetensors", save(tensors, {DIGEST: digest(tensors)}))
    config = to_dict(part.config)
    if not has_decoder(part):
        config["parts"] = "encoder"
    write_atomically(folder / "config.json", json.dumps(config, indent=1).encode())


def load_component(part: Any, folder: Path, free: Collection[str] = ()) -> None:
    """Fills a component with the weights in RUN/NAME, strictly; configuration fields named in `free` may differ.

    Raises:
        UserError: the component is missing, damaged, or was trained with another configuration.
    """
    path = folder / "config.json"
    values = read_json(path)
    parts = values.pop("parts", "all")
    if parts not in ("all", "encoder") or (parts == "encoder" and folder.name != "latent_action"):
        raise UserError(f"{path}: unknown parts {parts!r}; was it written by another version?")
    stored = to_plain(from_dict(type(part.config), values, str(path)))  # entries younger than it: defaults
    expected = to_plain(part.config)
    differing = sorted(k for k in {*stored, *expected} - {*free} if stored.get(k) != expected.get(k))
    if differing:
        k = differing[0]
        raise UserError(
            f"{folder}: trained with {k}={stored.get(k)}, but {folder.parent / 'config.json'} says {expected.get(k)}; "
            "is it from another preset? copy the matching component or train it anew"
        )
    path = folder / "model.safetensors"
    try:
        tensors = read_tensors(path)
        if parts == "encoder":
            drop_decoder(part)
        part.load_state_dict(tensors)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run the same train command again, which writes it") from None
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} does not fit its configuration or is damaged ({reason}); restore it") from None


def on_cpu(part: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.detach().cpu().contiguous() for k, v in part.state_dict().items()}


def in_range(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """As `dtype`, if it is a tensor of fractional numbers that all stay finite there."""
    if dtype is None or not tensor.is_floating_point():
        return tensor
    rounded = tensor.to(dtype)
    return rounded if torch.equal(rounded.isfinite(), tensor.isfinite()) else tensor


def to_plain(config: Any) -> dict[str, Any]:
    """As it is after a round trip through JSON."""
    return json.loads(json.dumps(to_dict(config)))


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 (hex) of names, dtypes, shapes and bytes, in the order of the names. On the CPU, contiguous."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode() + b"\n")
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file; where it holds its own digest, only if they are the ones that were written.

    Raises:
        UserError: they are not.
        SafetensorError, OSError: the file cannot be read.
    """
    tensors = load_file(path)
    with open(path, "rb") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
    metadata: dict[str, str] = json.loads(header).get("__metadata__") or {}
    if not metadata:
        return tensors  # of others, or of before there were digests
    found = digest(tensors)
    if DIGEST in metadata:  # which sees all but the spaces after the header
        whole = metadata[DIGEST] == found and header.rstrip(b" ").endswith(b"}")
    else:
        whole = found not in metadata.values()  # else the entry was there, and damage renamed it
    if not whole:
        raise UserError(
            f"{path} is damaged (its tensors are not those that were written: SHA-256); "
            "delete it and run the same train command again, which writes it anew from its checkpoint"
        )
    return tensors


def same_model(a: GenieConfig, b: GenieConfig, free: tuple[str, ...] = ()) -> str | None:
    """The first entry in which two configurations differ, as 'name: x / y', or None.

    Components named in `free` may differ.
    """

    def differ(x: Any, y: Any, name: str) -> str | None:
        for f in dataclasses.fields(x):
            u, v = getattr(x, f.name), getattr(y, f.name)
            where = f"{name}{f.name}"
            if where in free:
                continue
            if dataclasses.is_dataclass(u):
                inner = differ(u, v, where + ".")
                if inner:
                    return inner
            elif u != v:
                return f"{where}: {u} / {v}"
        return None

    return differ(a, b, "")


def is_exported(folder: Path) -> bool:
    """True if a run folder is an exported world, which cannot be trained further."""
    path = folder / "config.json"
    return path.is_file() and "exported" in read_json(path)
