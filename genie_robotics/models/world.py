"""The loop in which a world is played: a start, then one latent action at a time.

The window is the model's T frames. When it is full, the oldest frames are dropped down to T/2 and the caches are
computed anew from what remains (a hop of T/2 frames amortises that): cached keys above the first layer have seen the
dropped frames, so keeping them would not equal a recomputation. Both paths, cached and not, use this one rule.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from genie_datasets.base.errors import UserError
from genie_robotics.models.dynamics import Dynamics
from genie_robotics.models.inputs import codes_of, integer, seed_of, shown
from genie_robotics.models.layers.st_transformer import Past, TemporalCache
from genie_robotics.models.quantizers.codebook import Codebook
from genie_robotics.models.sampling import sample_frame
from genie_robotics.models.threads import threads_for
from genie_robotics.models.video_tokenizer import VideoTokenizer


@dataclass(frozen=True)
class WorldState:
    """One moment of a dream; never changed, so that undo and fork are free."""

    tokens: Int[Tensor, "B t N"]
    """Of the frames in the window."""
    actions: Float[Tensor, "B t L"]
    """Entry i led to frame i of the window; zeros for its first frame."""
    dynamics_cache: TemporalCache | None
    """Of all frames in the window."""
    decoder_cache: TemporalCache | None
    num_generated: int
    frame: UInt8[Tensor, "B H W 3"]

    def without_caches(self) -> WorldState:
        """The same moment, from which a world without a cache goes on."""
        return replace(self, dynamics_cache=None, decoder_cache=None)


class World:
    """A batch of dreams that step together. `Genie.start` and `Genie.generate` make it.

    tokens, actions: the window from which it starts, (B, t, N) and (B, t, L); action i led to frame i.
    codebook: gives the vector of each latent action.
    samples: (B,) numbers of the dreams; with `seed` and the frame's number they decide the noise.
    """

    def __init__(
        self,
        tokenizer: VideoTokenizer,
        dynamics: Dynamics,
        codebook: Codebook,
        tokens: Int[Tensor, "B t N"],
        actions: Float[Tensor, "B t L"],
        *,
        seed: int,
        samples: list[int],
        maskgit_steps: int,
        temperature: float,
        guidance: float = 1.0,
        use_cache: bool,
    ):
        self.tokenizer, self.dynamics, self.codebook = tokenizer, dynamics, codebook
        self.seed = seed_of(seed)
        self.samples = samples
        self.maskgit_steps = maskgit_steps
        self.temperature = temperature
        self.guidance = guidance
        self.use_cache = use_cache
        with threads_for(tokenizer, dynamics):
            self.states = [self.prime(tokens, actions)]

    @property
    def state(self) -> WorldState:
        return self.states[-1]

    @property
    def frame(self) -> UInt8[Tensor, "H W 3"] | UInt8[Tensor, "B H W 3"]:
        """The frame now shown; without a batch axis where there is one dream."""
        frame = self.state.frame
        return frame[0] if len(frame) == 1 else frame

    def step(self, code: int | Sequence[int] | np.ndarray | Int[Tensor, B]) -> Tensor:
        """Plays one latent action (one for all dreams, or one each) and returns the new frame, uint8."""
        codes, num = self.codes(code), len(self.samples)
        if codes.numel() not in (1, num) or codes.ndim > 1:
            raise UserError(
                f"code must be one latent action for all {num} dreams, or one each, got {shown(code)}; "
                f"pass an int, or a list of {num}"
            )
        with threads_for(self.tokenizer, self.dynamics):
            self.states.append(self.advance(self.state, codes.expand(num)))
        return self.frame

    def each(self, codes: Sequence[int] | np.ndarray | Int[Tensor, n]) -> UInt8[Tensor, "n H W 3"]:
        """The frames that each of these actions would give from here, computed together; the world stays where it is.

        Raises:
            UserError: there is more than one dream, or an action is none of this model's.
        """
        if len(self.samples) != 1:
            raise UserError(
                f"each needs a world of one dream, this one has {len(self.samples)}; start one from a single picture"
            )
        wanted = self.codes(codes)
        if wanted.ndim != 1:
            raise UserError(f"codes must be a list of latent actions, got {shown(codes)}; pass [code, ...]")
        if not len(wanted):
            return self.state.frame[:0]
        caches = (self.state.dynamics_cache, self.state.decoder_cache)
        dynamics_cache, decoder_cache = (cache and cache.repeated(len(wanted)) for cache in caches)
        state = replace(
            self.state,
            tokens=self.state.tokens.repeat(len(wanted), 1, 1),
            actions=self.state.actions.repeat(len(wanted), 1, 1),
            dynamics_cache=dynamics_cache,
            decoder_cache=decoder_cache,
            frame=self.state.frame.repeat(len(wanted), 1, 1, 1),
        )
        several = self.fork()
        several.samples = self.samples * len(wanted)
        with threads_for(self.tokenizer, self.dynamics):
            return several.advance(state, wanted).frame

    def undo(self, steps: int = 1) -> Tensor:
        """Takes back `steps` actions and returns the frame shown then.

        Raises:
            UserError: so many were not played.
        """
        played = len(self.states) - 1
        remedy = f"{played} actions were played: pass at most {played}"
        steps = integer(steps, "steps of undo", 0, played, remedy)
        del self.states[played + 1 - steps :]
        return self.frame

    def fork(self, seed: int | None = None) -> World:
        """An independent world with the same past (shared, not copied); another seed dreams another future."""
        other = copy.copy(self)
        other.seed = self.seed if seed is None else seed_of(seed)
        other.states = list(self.states)
        return other

    def codes(self, codes: Tensor | np.ndarray | Sequence | int) -> Int[Tensor, "*S"]:
        """Latent actions as int64 on the model's device; raises UserError for codes that the model does not have."""
        return codes_of(codes, self.codebook.config.num_codes).to(self.state.tokens.device)

    @torch.no_grad()
    def advance(self, state: WorldState, codes: Int[Tensor, B]) -> WorldState:
        dynamics, length = self.dynamics, self.dynamics.config.clip_length
        if state.tokens.shape[1] == length:
            state = self.slide(state, keep=max(1, length // 2))
        action = self.codebook.lookup(codes).to(state.actions.dtype).unsqueeze(1)
        past = state.dynamics_cache.gather() if state.dynamics_cache is not None else None
        tokens = sample_frame(
            self.frame_logits(state, action, past),
            num_patches=dynamics.config.num_patches,
            mask_token=dynamics.mask_token,
            seed=self.seed,
            samples=self.samples,
            frame=state.num_generated,
            num_steps=self.maskgit_steps,
            temperature=self.temperature,
            device=state.tokens.device,
        ).unsqueeze(1)
        new = replace(
            state,
            tokens=torch.cat([state.tokens, tokens], dim=1),
            actions=torch.cat([state.actions, action], dim=1),
            num_generated=state.num_generated + 1,
        )
        if state.dynamics_cache is None or state.decoder_cache is None:
            return replace(new, frame=self.tokenizer.decode(new.tokens)[:, -1])
        # One more pass over the finished frame: its keys and values now come from its tokens, not from masks.
        _, keys_values = dynamics.hidden(tokens, action, past, before=state.tokens[:, -1:])
        frames, decoder_new = self.tokenizer.decode_after(tokens, state.decoder_cache.gather())
        return replace(
            new,
            dynamics_cache=state.dynamics_cache.extended(keys_values),
            decoder_cache=state.decoder_cache.extended(decoder_new),
            frame=frames[:, -1],
        )

    def frame_logits(self, state: WorldState, action: Float[Tensor, "B 1 L"], past: Past | None = None):
        """A function from the new frame's tokens (B, N) to its logits (B, N, V), guided.

        `past` is what the state's cache gathers to, where the caller has it already.
        """
        told = self.told_logits(state, action, past)
        if self.guidance == 1:
            return told
        untold = self.told_logits(state, torch.zeros_like(action), past)
        return lambda tokens: torch.lerp(untold(tokens), told(tokens), self.guidance)

    def told_logits(self, state: WorldState, action: Float[Tensor, "B 1 L"], past: Past | None):
        """The same where this action is told and no more made of it."""
        dynamics = self.dynamics
        if past is None and state.dynamics_cache is not None:
            past = state.dynamics_cache.gather()
        if past is not None:
            before = state.tokens[:, -1:]
            return lambda tokens: dynamics.head(dynamics.hidden(tokens.unsqueeze(1), action, past, before)[0])[:, 0]
        # The reference: the full window of T frames, later ones masked, recomputed at every step.
        batch, now, num_patches = state.tokens.shape
        length = dynamics.config.clip_length
        window = torch.full_like(state.tokens[:, :1], dynamics.mask_token).repeat(1, length, 1)
        window[:, :now] = state.tokens
        actions = torch.zeros(batch, length, action.shape[-1], dtype=action.dtype, device=action.device)
        actions[:, :now], actions[:, now] = state.actions, action[:, 0]

        def logits_of(tokens: Tensor) -> Tensor:
            window[:, now] = tokens
            return dynamics.logits(window, actions)[:, now]

        return logits_of

    @torch.no_grad()
    def prime(
        self, tokens: Int[Tensor, "B t N"], actions: Float[Tensor, "B t L"], num_generated: int = 0
    ) -> WorldState:
        """The state after a window of given tokens; computes both caches."""
        if not self.use_cache:
            return WorldState(tokens, actions, None, None, num_generated, self.tokenizer.decode(tokens)[:, -1])
        _, dynamics_new = self.dynamics.hidden(tokens, actions, None)
        frames, decoder_new = self.tokenizer.decode_after(tokens, None)
        caches = TemporalCache().extended(dynamics_new), TemporalCache().extended(decoder_new)
        return WorldState(tokens, actions, *caches, num_generated, frames[:, -1])

    def slide(self, state: WorldState, keep: int) -> WorldState:
        """The state seen through a window of the last `keep` frames only."""
        actions = state.actions[:, -keep:].clone()
        actions[:, 0] = 0  # what led to the first frame of a window is unknown to the model, in training as here
        return self.prime(state.tokens[:, -keep:], actions, state.num_generated)
