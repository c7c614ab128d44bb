"""Genie: video tokenizer, latent action model and dynamics, together a world to play."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor, nn

from genie_datasets.base.errors import UserError
from genie_robotics.models.compilation import why_not_compiled
from genie_robotics.models.config import COMPONENTS, GenieConfig, read_json
from genie_robotics.models.display import Display, display_size
from genie_robotics.models.dynamics import Dynamics
from genie_robotics.models.inference import inference
from genie_robotics.models.inputs import (
    codes_of,
    device_of,
    fitted,
    frames_of,
    integer,
    integers_of,
    number,
    path_of,
    seed_of,
    shown,
    unfitted_frames,
)
from genie_robotics.models.latent_action import LatentActionModel
from genie_robotics.models.missing import MissingModule
from genie_robotics.models.sampling import Sampler, make_order
from genie_robotics.models.trust import TrustModel, read_trust, trust_or_error
from genie_robotics.models.video_tokenizer import VideoTokenizer, make_tokenizer
from genie_robotics.models.windows import frames_at_once, read_windows
from genie_robotics.models.world import World
from genie_robotics.pretrained import WORLDS, locate
from genie_robotics.run_folder import load_component, load_config, save_component, save_config

if TYPE_CHECKING:
    from PIL.Image import Image

NO_WORLD = (
    "this folder holds only a latent action model, which judges dreams and cannot be played; pass the folder of a world"
)
Frames = UInt8[Tensor, "B T H W 3"] | np.ndarray
Reference = UInt8[Tensor, "B H W 3"] | np.ndarray | None


class Genie(nn.Module):
    """The three components of Genie (Bruce et al. 2024). `Genie(config)` is untrained; `from_pretrained` loads a run.

    Frames are (B, T, H, W, 3) uint8 at `config.image_size`: torch tensors, numpy arrays of any layout, or lists.
    Results are torch tensors. Clips may be longer than `config.clip_length`, because they are read in windows. Integers
    may have any type. A small model on a CPU computes with one thread, unless you set a number of threads
    (`genie_robotics.models.threads`). A GPU that has bfloat16 reads video in it; a CPU reads it in float32.
    """

    def __init__(self, config: GenieConfig, components: Sequence[str] = COMPONENTS):
        """components: names of those to build; with ("latent_action",) the model infers actions and cannot play."""
        super().__init__()
        self.config = config = config.resolved()
        self.components = tuple(components)
        tokenizer = make_tokenizer(config.tokenizer) if "tokenizer" in components else None
        if tokenizer is None and config.latent_action.frame_space == "tokens":
            raise UserError("this latent action model reads tokens and needs its tokenizer; build all components")
        missing: Any = MissingModule(NO_WORLD)
        self.tokenizer: VideoTokenizer = tokenizer or missing
        self.latent_action = LatentActionModel(config.latent_action, tokenizer)
        self.dynamics: Dynamics = Dynamics(config.dynamics) if "dynamics" in components else missing
        self.trust_model: TrustModel | None = None

    def reset_component(self, name: str) -> nn.Module:
        """Replaces a component by an untrained one on the CPU, and returns it."""
        fresh: nn.Module
        if not isinstance(name, str) or name not in COMPONENTS:
            raise UserError(f"unknown component {shown(name)}; expected one of {', '.join(COMPONENTS)}")
        if name == "tokenizer":
            fresh = make_tokenizer(self.config.tokenizer)
            if self.config.latent_action.frame_space == "tokens":
                raise ValueError("the latent action model reads the tokens of this tokenizer; make a new Genie")
        elif name == "latent_action":
            fresh = LatentActionModel(self.config.latent_action, self.tokenizer)
        else:
            fresh = Dynamics(self.config.dynamics)
        setattr(self, name, fresh)
        return fresh

    @staticmethod
    def from_pretrained(run: str | Path, device: str | torch.device = "cpu") -> Genie:
        """Loads a run folder (config.json and one safetensors file per component) strictly, in evaluation mode.

        Args:
            run: a run folder, or the name of a world that comes with the package.

        Raises:
            UserError: the run is missing or damaged, or `device` cannot be used.
        """
        path, device = path_of(run, "run"), device_of(device)
        folder = locate(path)
        if not folder.is_dir():
            raise UserError(
                f"no run folder {path}; train one (genie-robotics train {path} --data SRC --preset nano), or pass the "
                f"name of a world of the package: {', '.join(WORLDS)}"
            )
        config, stored = load_config(folder), read_json(folder / "config.json")
        components = stored.get("components", list(COMPONENTS))
        if components not in (list(COMPONENTS), ["latent_action"]):
            raise UserError(
                f"{folder / 'config.json'} lists components {components}; expected all three or latent_action only: "
                "restore the file"
            )
        genie = Genie(config, components)
        for name in components:
            try:
                load_component(getattr(genie, name), folder / name)
            except UserError as error:
                if "exported" not in stored:
                    raise
                # The error's own remedy is to train, which an exported world does not do.
                what = str(error).rpartition("; ")[0] or str(error)
                raise UserError(f"{what}; copy this world again, or reinstall genie-robotics") from None
        genie.trust_model = read_trust(folder)
        return genie.to(device).eval()

    def save_pretrained(self, run: str | Path) -> None:
        """Writes config.json and the components into the folder `run`; raises UserError."""
        path = path_of(run, "run")
        save_config(self.config, path, **({} if self.components == COMPONENTS else {"components": self.components}))
        for name in self.components:
            save_component(getattr(self, name), path / name)
        if self.trust_model is not None:
            self.trust_model.write(path)

    @property
    def device(self) -> torch.device:
        return next(self.latent_action.parameters()).device

    def num_parameters(self) -> dict[str, int]:
        return {name: sum(p.numel() for p in getattr(self, name).parameters()) for name in self.components}

    @torch.no_grad()
    def infer_actions(self, frames: Frames) -> Int[Tensor, "B T-1"]:
        """The latent action (0 .. K-1) of every step; entry t leads from frame t to t+1."""
        return self._read(self.latent_action.encode, self.check(frames, at_least=2), overlap=1)

    @torch.no_grad()
    def embed_actions(self, frames: Frames) -> Float[Tensor, "B T-1 L"]:
        """The latent actions before quantization (normalized); entry t leads from frame t to t+1."""
        return self._read(self.latent_action.embed, self.check(frames, at_least=2), overlap=1)

    @torch.no_grad()
    def tokenize(self, frames: Frames, reference: Reference = None) -> Int[Tensor, "B T N"]:
        """The N tokens of every frame.

        reference: pictures that the tokens are relative to, if the tokenizer has a reference (default: each clip's
            first frame).
        """
        frames = self.check(frames)
        reference = frames[:, 0] if reference is None else self.check_reference(reference, len(frames))
        return self._code(self.tokenizer.encode, frames, reference)

    @torch.no_grad()
    def detokenize(
        self, tokens: Int[Tensor, "B T N"] | np.ndarray, reference: Reference = None
    ) -> UInt8[Tensor, "B T H W 3"]:
        """The frames of tokens (B, T, N).

        reference: the pictures that `tokenize` was given; needed if the tokenizer has a reference.
        """
        remedy = "pass tokens as Genie.tokenize returns them"
        found = integers_of(tokens, self.config.dynamics.num_tokens - 1, "tokens", remedy)
        num_patches = self.config.dynamics.num_patches
        if found.ndim != 3 or found.shape[2] != num_patches or not found.numel():
            raise UserError(f"tokens must be (B, T, {num_patches}) integers, got {shown(tokens)}; {remedy}")
        if reference is not None:
            reference = self.check_reference(reference, len(found))
        elif self.tokenizer.uses_reference:
            raise UserError(
                "these tokens say what differs from a reference, and none was given; pass "
                "reference=frames[:, 0], the first frame of each clip"
            )
        return self._code(self.tokenizer.decode, found.to(self.device), reference)

    def reconstruct(self, frames: Frames) -> UInt8[Tensor, "B T H W 3"]:
        """Frames after encoding and decoding, relative to each clip's first frame if the tokenizer has a reference."""
        frames = self.check(frames)
        return self.detokenize(self.tokenize(frames), frames[:, 0])

    @overload
    def generate(
        self,
        frames: Frames,
        codes: Any,
        seed: int = 0,
        maskgit_steps: int | None = None,
        temperature: float | None = None,
        use_cache: bool = True,
        display: int | tuple[int, int] | None = None,
        *,
        return_trust: Literal[True],
    ) -> tuple[UInt8[Tensor, "B n H W 3"], Float[Tensor, "B n"]]: ...

    @overload
    def generate(
        self,
        frames: Frames,
        codes: Any,
        seed: int = 0,
        maskgit_steps: int | None = None,
        temperature: float | None = None,
        use_cache: bool = True,
        display: int | tuple[int, int] | None = None,
        return_trust: Literal[False] = False,
    ) -> UInt8[Tensor, "B n H W 3"]: ...

    @torch.no_grad()
    def generate(
        self,
        frames: Frames,
        codes: Int[Tensor, "B n"] | np.ndarray | Sequence[Sequence[int]],
        seed: int = 0,
        maskgit_steps: int | None = None,
        temperature: float | None = None,
        use_cache: bool = True,
        display: int | tuple[int, int] | None = None,
        return_trust: bool = False,
    ) -> UInt8[Tensor, "B n H W 3"] | tuple[UInt8[Tensor, "B n H W 3"], Float[Tensor, "B n"]]:
        """Dreams n frames after the prompt `frames` (B, T0, H, W, 3), one for each of `codes` (B, n).

        The actions between prompt frames are inferred. Only the last `config.clip_length` frames of a prompt count.

        Args:
            seed: see `start`.
            maskgit_steps, temperature: of the sampler; the model's own if None.
            use_cache: False recomputes the full window at every MaskGIT step, which is slow and serves as a reference.
            display: size of the frames returned, and of those accepted; see `start`.
            return_trust: True also returns `World.trust` of each frame, (B, n).

        Raises:
            UserError: an argument is not as expected.
        """
        given, codes = codes, self.check_codes(codes)
        frames = self._unfitted(frames, any_size=display is not None)
        if codes.ndim != 2 or len(codes) != len(frames):
            raise UserError(
                f"codes must be (B, n) with B={len(frames)} as in frames, got {shown(given)}; "
                f"pass {len(frames)} rows of codes"
            )
        world = self.start(
            frames,
            seed=seed,
            maskgit_steps=maskgit_steps,
            temperature=temperature,
            use_cache=use_cache,
            display=display,
        )
        dream, trust = [], []
        if return_trust:
            trust_or_error(self.trust_model)
        for t in range(codes.shape[1]):
            world.step(codes[:, t])
            dream.append(world.show(world.state))
            if return_trust:
                trust.append(world.trust)
            del world.states[:-1]  # only `undo` needs them
        if not dream:
            size = display_size(display, self.config.image_size)
            none = torch.zeros(len(frames), 0, *size, 3, dtype=torch.uint8, device=self.device)
            return (none, none.new_zeros(len(frames), 0, dtype=torch.float32)) if return_trust else none
        found = torch.stack(dream, dim=1)
        return (found, torch.stack(trust, dim=1)) if return_trust else found

    @torch.no_grad()
    def start(
        self,
        frames: Frames | str | PathLike | Image,
        *,
        seed: int = 0,
        maskgit_steps: int | None = None,
        temperature: float | None = None,
        use_cache: bool = True,
        display: int | tuple[int, int] | None = None,
    ) -> World:
        """A world to play from a picture, a clip (T0, H, W, 3), or a batch of clips (B, T0, H, W, 3).

        Args:
            frames: a picture is an array (H, W, 3) uint8, a PIL image, or the path of an image file. It may have any
                size and is fitted as `config.fit` says (`genie_datasets.fit_frames`). Clips must have the model's size.
            seed: any integer between -2**128 and 2**128; another seed dreams another future.
            maskgit_steps, temperature, use_cache: see `generate`.
            display: size of the frames that `World.display` shows: pixels of the shorter side, or (height, width) with
                the model's proportions; None: the model's size. Clips may then have any size too. What the model keeps
                of a larger start picture is shown as sharp as the picture, if the tokenizer has a reference.

        Raises:
            UserError: an argument is not as expected.
        """
        defaults, seed = self.config.dynamics, seed_of(seed)
        own = "leave it out to use the model's own"
        steps = defaults.maskgit_steps if maskgit_steps is None else maskgit_steps
        maskgit_steps = integer(steps, "maskgit_steps", 1, remedy=own)
        temperature = number(defaults.temperature if temperature is None else temperature, "temperature", 0, own)
        from genie_datasets.sources.pictures import as_array

        size, fit = self.config.image_size, self.config.fit
        shown_size = display_size(display, size)
        given = unfitted_frames(as_array(frames), size, fit, with_pictures=True, any_size=display is not None)
        given = given[:, -self.config.clip_length :]
        frames = fitted(given, size, fit).to(self.device)
        is_larger = any(side > own for side, own in zip(given.shape[2:4], size, strict=True))
        sharp = fitted(given[:, 0], shown_size, fit).to(self.device) if display and is_larger else None
        actions = torch.zeros(*frames.shape[:2], self.config.dynamics.action_dim, device=self.device)
        with inference(self.device, self):
            if frames.shape[1] > 1:
                actions[:, 1:] = self.latent_action.quantizer.lookup(self.latent_action.encode(frames))
            tokens = self.tokenizer.encode(frames, frames[:, 0])
        actions = actions.to(self.dynamics.head.weight.dtype)
        return World(
            self.tokenizer,
            self.dynamics,
            self.latent_action.quantizer,
            tokens,
            actions,
            frames[:, 0],
            sampler=Sampler(maskgit_steps, temperature, make_order(defaults.order, self.config.grid)),
            seed=seed,
            samples=list(range(len(frames))),
            use_cache=use_cache,
            display=Display(shown_size, sharp, frames[:, 0]),
            trust_model=self.trust_model,
        )

    def compile_dreams(self) -> None:
        """Compiles the steps of single dreams (torch.compile), which then take about three quarters of the time.

        On two CPU cores that takes 10 to 60 s the first time and pays after some thousand frames, so it is left to you
        (docs/performance.md).

        Raises:
            UserError: this machine cannot compile.
        """
        lack = why_not_compiled(self.device)
        if lack is not None:
            raise UserError(f"cannot compile: {lack}; install it, or leave out --compile (compile_dreams)")
        for part in (self.dynamics.transformer, self.tokenizer.decoder):
            part.compile_single_frames = True
        still = torch.zeros(1, 1, *self.config.image_size, 3, dtype=torch.uint8)
        self.start(still, maskgit_steps=1).step(0)

    def check(self, frames: Frames, at_least: int = 1) -> UInt8[Tensor, "B T H W 3"]:
        """Frames as a tensor on the model's device.

        Raises:
            UserError: not uint8, not five-dimensional, shorter than `at_least` frames, or not of `config.image_size`.
        """
        found = self._unfitted(frames)
        if found.shape[1] < at_least:
            raise UserError(
                f"frames must be clips of at least {at_least} frames, got {shown(frames)}; pass longer clips"
            )
        return found.to(self.device)

    def _unfitted(self, frames: Frames, any_size: bool = False) -> UInt8[Tensor, "B T H0 W0 3"]:
        return unfitted_frames(frames, self.config.image_size, self.config.fit, any_size=any_size)

    def check_reference(self, reference: Frames, num: int) -> UInt8[Tensor, "B H W 3"]:
        """`num` pictures (B, H, W, 3) as a tensor on the model's device; raises UserError."""
        if getattr(reference, "ndim", None) != 4 or len(reference) != num:
            raise UserError(
                f"reference must be ({num}, H, W, 3) uint8, one picture for each clip, got {shown(reference)}; "
                "pass frames[:, 0], the first frame of each clip"
            )
        return frames_of(reference[:, None], self.config.image_size, self.config.fit)[:, 0].to(self.device)

    def check_codes(self, codes: Tensor | np.ndarray | Sequence | int) -> Int[Tensor, "*S"]:
        """Latent actions as int64 on the model's device; raises UserError unless all are 0 .. K-1."""
        return codes_of(codes, self.config.num_actions).to(self.device)

    def _read(self, component: Callable[[Tensor], Tensor], x: Shaped[Tensor, "B T *S"], overlap: int = 0) -> Tensor:
        """Results (B, T - overlap, ...) of a component's method, which reads x in windows of `clip_length` entries."""
        most = frames_at_once(self.config.image_size, self.device)
        with inference(self.device, self):
            found = read_windows(
                x, lambda windows: component(torch.stack(windows)), self.config.clip_length, overlap, most
            )
            return torch.stack([torch.cat(parts) for parts in found])

    def _code(
        self,
        method: Callable[[Tensor, Tensor | None], Tensor],
        x: Shaped[Tensor, "B T *S"],
        reference: UInt8[Tensor, "B H W 3"] | None,
    ) -> Tensor:
        """Results (B, T, ...) of the tokenizer's `encode` or `decode`, which read x in windows of `clip_length`."""
        length = self.config.clip_length
        num = max(1, frames_at_once(self.config.image_size, self.device) // length)
        references = [None] * -(-len(x) // num) if reference is None else reference.split(num)
        with inference(self.device, self):
            rows = [
                torch.cat([method(window, still) for window in clips.split(length, dim=1)], dim=1)
                for clips, still in zip(x.split(num), references, strict=True)
            ]
            return torch.cat(rows)
