"""Genie: video tokenizer, latent action model and dynamics as one playable model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from genie_datasets.errors import UserError
from genie_robotics.config import GenieConfig
from genie_robotics.dynamics import Dynamics
from genie_robotics.latent_action import LatentActionModel
from genie_robotics.video_tokenizer import VideoTokenizer
from genie_robotics.world import World, prime

COMPONENTS = ("tokenizer", "latent_action", "dynamics")
Frames = UInt8[Tensor, "B T H W 3"] | np.ndarray


class Genie(nn.Module):
    """The three components. A new one is untrained; `Genie.from_pretrained` loads a run.

    Frames are (B, T, H, W, 3) uint8 at `config.image_size`, torch or numpy; torch comes back. Clips may be longer
    than `config.clip_length`: they are read in windows.
    """

    def __init__(self, config: GenieConfig):
        super().__init__()
        self.config = config = config.resolved()
        self.tokenizer = VideoTokenizer(config.tokenizer)
        self.latent_action = LatentActionModel(config.latent_action, self.tokenizer)
        self.dynamics = Dynamics(config.dynamics)

    def begin_anew(self, name: str) -> nn.Module:
        """Puts an untrained component, on the CPU, into the place of this one, and returns it."""
        fresh: nn.Module
        if name == "tokenizer":  # the latent action model may read through it
            fresh = VideoTokenizer(self.config.tokenizer)
            if self.latent_action.tokens is not None:
                raise ValueError("the latent action model reads this tokenizer's tokens: make a new Genie")
        elif name == "latent_action":
            fresh = LatentActionModel(self.config.latent_action, self.tokenizer)
        else:
            fresh = Dynamics(self.config.dynamics)
        setattr(self, name, fresh)
        return fresh

    @staticmethod
    def from_pretrained(run: str | Path, device: str | torch.device = "cpu") -> Genie:
        """Loads a run folder (config.json and one safetensors file a component), strictly, in evaluation mode."""
        from genie_robotics.run_folder import load_genie

        return load_genie(Path(run)).to(device).eval()

    def save_pretrained(self, run: str | Path) -> None:
        """Writes config.json and the three components into the folder `run`."""
        from genie_robotics.run_folder import save_component, save_config

        save_config(self.config, Path(run))
        for name in COMPONENTS:
            save_component(self, name, Path(run))

    @property
    def device(self) -> torch.device:
        return self.dynamics.head.weight.device

    def num_parameters(self) -> dict[str, int]:
        return {name: sum(p.numel() for p in getattr(self, name).parameters()) for name in COMPONENTS}

    @torch.no_grad()
    def infer_actions(self, frames: Frames) -> Int[Tensor, "B T-1"]:
        """The code of every step; entry t is what happened from frame t to t+1."""
        frames = self.check(frames, at_least=2)
        return torch.cat([self.latent_action.encode(clip) for clip in self.windows(frames, overlap=1)], dim=1)

    @torch.no_grad()
    def embed_actions(self, frames: Frames) -> Float[Tensor, "B T-1 L"]:
        """The latent actions before quantisation (normalised), entry t for the step from t to t+1."""
        frames = self.check(frames, at_least=2)
        return torch.cat([self.latent_action.embed(clip) for clip in self.windows(frames, overlap=1)], dim=1)

    @torch.no_grad()
    def tokenize(self, frames: Frames) -> Int[Tensor, "B T N"]:
        frames = self.check(frames)
        return torch.cat([self.tokenizer.encode(clip) for clip in self.windows(frames)], dim=1)

    @torch.no_grad()
    def detokenize(self, tokens: Int[Tensor, "B T N"]) -> UInt8[Tensor, "B T H W 3"]:
        tokens = torch.as_tensor(tokens, device=self.device)
        most = self.config.dynamics.num_tokens
        if tokens.ndim != 3 or tokens.is_floating_point() or tokens.min() < 0 or tokens.max() >= most:
            raise UserError(f"tokens must be (B, T, N) integers of 0 .. {most - 1}")
        return torch.cat([self.tokenizer.decode(clip) for clip in self.windows(tokens)], dim=1)

    @torch.no_grad()
    def generate(
        self,
        frames: Frames,
        codes: Int[Tensor, "B n"] | np.ndarray | Sequence[Sequence[int]],
        seed: int = 0,
        maskgit_steps: int | None = None,
        temperature: float | None = None,
        guidance: float | None = None,
        use_cache: bool = True,
    ) -> UInt8[Tensor, "B n H W 3"]:
        """Dreams n frames after the prompt `frames` (B, T0, H, W, 3), one for each of `codes` (B, n).

        With several prompt frames the actions between them are inferred. Of a prompt longer than the window the last
        frames are used. `use_cache=False` recomputes the full window at every MaskGIT step: the slow reference.
        """
        codes = self.check_codes(codes)
        frames = self.check(frames)
        if codes.ndim != 2 or len(codes) != len(frames):
            raise UserError(f"codes must be (B, n) with B={len(frames)} as in frames, not {tuple(codes.shape)}")
        world = self.start(
            frames,
            seed=seed,
            maskgit_steps=maskgit_steps,
            temperature=temperature,
            guidance=guidance,
            use_cache=use_cache,
        )
        dream = []
        for t in range(codes.shape[1]):
            world.step(codes[:, t])
            dream.append(world.state.frame)
            del world.states[:-1]  # nobody can undo here: do not keep the past
        if not dream:
            return torch.zeros(len(frames), 0, *self.config.image_size, 3, dtype=torch.uint8, device=self.device)
        return torch.stack(dream, dim=1)

    @torch.no_grad()
    def start(
        self,
        frames: Frames,
        *,
        seed: int = 0,
        maskgit_steps: int | None = None,
        temperature: float | None = None,
        guidance: float | None = None,
        use_cache: bool = True,
    ) -> World:
        """A world to play from a frame (H, W, 3), a clip (T0, H, W, 3), or a batch of clips (B, T0, H, W, 3)."""
        defaults = self.config.dynamics
        maskgit_steps = defaults.maskgit_steps if maskgit_steps is None else maskgit_steps
        temperature = defaults.temperature if temperature is None else temperature
        guidance = defaults.guidance if guidance is None else guidance
        if guidance != 1 and not defaults.action_dropout:
            raise UserError(
                f"guidance {guidance:g} compares with dreams that are not told the action, and this model always was; "
                "leave it at 1, or train with --dynamics.action-dropout .1"
            )
        if maskgit_steps < 1 or not 0 <= temperature < math.inf:
            raise UserError(
                f"maskgit_steps must be at least 1 and temperature 0 or more, not {maskgit_steps}, {temperature}"
            )
        frames = torch.as_tensor(frames)
        while frames.ndim < 5:
            frames = frames.unsqueeze(0)
        frames = self.check(frames)[:, -self.config.clip_length :]
        actions = torch.zeros(*frames.shape[:2], self.config.dynamics.action_dim, device=self.device)
        if frames.shape[1] > 1:
            actions[:, 1:] = self.latent_action.codebook.lookup(self.latent_action.encode(frames))
        tokens = self.tokenizer.encode(frames)
        actions = actions.to(self.dynamics.head.weight.dtype)
        return World(
            self,
            prime(self, tokens, actions, use_cache=use_cache),
            seed=seed,
            samples=list(range(len(frames))),
            maskgit_steps=maskgit_steps,
            temperature=temperature,
            guidance=guidance,
            use_cache=use_cache,
        )

    def check(self, frames: Frames, at_least: int = 1) -> UInt8[Tensor, "B T H W 3"]:
        """Frames as a tensor on this model's device.

        Raises:
            UserError: not uint8, not five-dimensional, too few frames, or not of `config.image_size`.
        """
        frames = torch.as_tensor(frames)
        expected = (*self.config.image_size, 3)
        if frames.dtype != torch.uint8 or frames.ndim != 5 or tuple(frames.shape[2:]) != expected:
            height, width = self.config.image_size
            raise UserError(
                f"frames must be (B, T, {height}, {width}, 3) uint8, not {tuple(frames.shape)} "
                f"{str(frames.dtype).removeprefix('torch.')}; genie_datasets.fit_frames resizes any image"
            )
        if not len(frames):
            raise UserError("there is no clip in this batch")
        if frames.shape[1] < at_least:
            raise UserError(f"this needs clips of at least {at_least} frames, not {frames.shape[1]}")
        return frames.to(self.device)

    def check_codes(self, codes: Tensor | np.ndarray | Sequence | int) -> Int[Tensor, "*S"]:
        """Latent actions as a tensor on this model's device; raises UserError where they are none of this model."""
        codes = torch.as_tensor(codes, device=self.device)
        whole = not (codes.is_floating_point() or codes.is_complex()) or not codes.numel()
        if not whole or (codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.config.num_actions):
            raise UserError(
                f"latent actions are 0 .. {self.config.num_actions - 1}, not {codes.flatten()[:8].tolist()}"
            )
        return codes.long()

    def windows(self, x: Tensor, overlap: int = 0) -> Iterator[Tensor]:
        """Pieces of at most `clip_length` along axis 1; neighbours share `overlap` entries."""
        length = self.config.clip_length
        for start in range(0, max(1, x.shape[1] - overlap), length - overlap):
            yield x[:, start : start + length]
