"""The loop in which a world is played: a start, then one latent action at a time.

The window is the model's T frames. When it is full, it slides: the oldest frames are dropped down to T/2, and the
caches are computed again from the frames that remain, because cached keys above the first layer depend on the dropped
frames. Both paths, cached and uncached, follow this rule, so that they give the same dream.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from genie_datasets.base.errors import UserError
from genie_robotics.models.display import Display
from genie_robotics.models.dynamics import Dynamics
from genie_robotics.models.inference import inference
from genie_robotics.models.inputs import codes_of, integer, seed_of, shown
from genie_robotics.models.layers.cache import TemporalCache
from genie_robotics.models.quantizers import Quantizer
from genie_robotics.models.sampling import Sampler
from genie_robotics.models.trust import TrustModel, read_signs, trust_or_error
from genie_robotics.models.video_tokenizer import VideoTokenizer


@dataclass(frozen=True)
class WorldState:
    """One moment of a dream; never changed, so that undo and fork cost nothing."""

    tokens: Int[Tensor, "B t N"]
    """Tokens of the frames in the window."""
    actions: Float[Tensor, "B t L"]
    """Entry i led to frame i of the window; zeros for its first frame."""
    dynamics_cache: TemporalCache | None
    """Keys and values of all frames in the window; None recomputes the window at every sampling step."""
    decoder_cache: TemporalCache | None
    """Keys and values of the decoder; also None if it decodes frames one by one."""
    num_generated: int
    shown: tuple[UInt8[Tensor, "B H W 3"], ...]
    """The frames of the window."""
    gate: UInt8[Tensor, "B H W"] | None
    """255 where a pixel of the newest frame is the reference's; None if the tokenizer has no reference."""
    log_prob: Float[Tensor, B]
    """Mean log-probability at which the sampler chose the frame's tokens; 0 for a given frame."""

    @property
    def frame(self) -> UInt8[Tensor, "B H W 3"]:
        """The newest frame."""
        return self.shown[-1]

    def without_caches(self) -> WorldState:
        """This moment for a world without a cache."""
        return replace(self, dynamics_cache=None, decoder_cache=None)


class World:
    """A batch of dreams that step together; `Genie.start` makes it.

    quantizer: the latent action model's; gives the vector of each code.
    tokens, actions: the window from which the dreams start; action i led to frame i.
    reference: the picture that the tokens are relative to, of all dreams or of each; a tokenizer may have none.
    samples: a number per dream; with `seed` and the frame's number it decides the noise.
    use_cache: False recomputes the full window at every sampling step: the slow reference.
    display: shows frames at another size (default: the model's).
    trust_model: makes a probability of the signs of a frame; None: the world gives no `trust`.
    """

    def __init__(
        self,
        tokenizer: VideoTokenizer,
        dynamics: Dynamics,
        quantizer: Quantizer,
        tokens: Int[Tensor, "B t N"],
        actions: Float[Tensor, "B t L"],
        reference: UInt8[Tensor, "B H W 3"],
        *,
        sampler: Sampler,
        seed: int,
        samples: list[int],
        use_cache: bool,
        display: Display | None = None,
        trust_model: TrustModel | None = None,
    ):
        self.tokenizer, self.dynamics, self.quantizer = tokenizer, dynamics, quantizer
        self.sampler = sampler
        self.seed = seed_of(seed)
        self.samples = samples
        self.use_cache = use_cache
        self.trust_model = trust_model
        self.reference = reference
        self._display = display or Display((reference.shape[1], reference.shape[2]), None, reference)
        self.states = [self.prime(tokens, actions)]

    @property
    def state(self) -> WorldState:
        return self.states[-1]

    @property
    def frame(self) -> UInt8[Tensor, "H W 3"] | UInt8[Tensor, "B H W 3"]:
        """The current frame; without a batch axis if there is one dream."""
        frame = self.state.frame
        return frame[0] if len(frame) == 1 else frame

    @property
    def display(self) -> UInt8[Tensor, "H2 W2 3"] | UInt8[Tensor, "B H2 W2 3"]:
        """The current frame at the display size that `Genie.start` was given, with axes like `frame`."""
        frame = self.show(self.state)
        return frame[0] if len(frame) == 1 else frame

    @property
    def trust(self) -> Float[Tensor, B]:
        """The probability that the current frame is right, of each dream: 1 = trust it. Computed when it is read.

        Raises:
            UserError: the world has no trust.json.
        """
        return trust_or_error(self.trust_model).probability(self.trust_signs)

    @property
    def trust_signs(self) -> Float[Tensor, "B S"]:
        """The signs (genie_robotics.models.trust) from which `trust` is computed."""
        state = self.state
        with self._inference():
            return read_signs(
                self.tokenizer, state.frame, state.tokens[:, -1], state.log_prob, state.num_generated, self.reference
            )

    def show(self, state: WorldState) -> UInt8[Tensor, "B H2 W2 3"]:
        """The frame of a state at the display size."""
        return self._display.show(state.frame, state.gate)

    def step(self, code: int | Sequence[int] | np.ndarray | Int[Tensor, B]) -> Tensor:
        """Plays one latent action (one for all dreams, or one each) and returns the new frame, uint8."""
        codes, num = self._checked(code), len(self.samples)
        if codes.numel() not in (1, num) or codes.ndim > 1:
            raise UserError(
                f"code must be one latent action for all {num} dreams, or one each, got {shown(code)}; "
                f"pass an int, or a list of {num}"
            )
        with self._inference():
            self.states.append(self._advance(self.state, codes.expand(num)))
        return self.frame

    def preview(
        self, codes: Sequence[int] | np.ndarray | Int[Tensor, n] | None = None, at_display_size: bool = False
    ) -> UInt8[Tensor, "n H W 3"]:
        """The frames that these actions (default: all) would give, computed together; the world stays where it is.

        at_display_size: frames as `display` shows them.

        Raises:
            UserError: there is more than one dream, or the model has no such action.
        """
        if len(self.samples) != 1:
            raise UserError(
                f"preview needs a world of one dream, got {len(self.samples)}; start one from a single picture"
            )
        wanted = self._checked(range(self.quantizer.num_codes) if codes is None else codes)
        if wanted.ndim != 1:
            raise UserError(f"codes must be a list of latent actions, got {shown(codes)}; pass [code, ...]")
        if not len(wanted):
            return (self.show(self.state) if at_display_size else self.state.frame)[:0]
        caches = (self.state.dynamics_cache, self.state.decoder_cache)
        dynamics_cache, decoder_cache = (cache and cache.repeated(len(wanted)) for cache in caches)
        state = replace(
            self.state,
            tokens=self.state.tokens.repeat(len(wanted), 1, 1),
            actions=self.state.actions.repeat(len(wanted), 1, 1),
            dynamics_cache=dynamics_cache,
            decoder_cache=decoder_cache,
            shown=tuple(frame.repeat(len(wanted), 1, 1, 1) for frame in self.state.shown),
        )
        several = self.fork()
        several.samples = self.samples * len(wanted)
        with self._inference():
            state = several._advance(state, wanted)
        return several.show(state) if at_display_size else state.frame

    def undo(self, steps: int = 1) -> Tensor:
        """Takes back `steps` actions and returns the frame shown then; raises UserError if fewer were played."""
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

    def _inference(self, device: torch.device | None = None) -> AbstractContextManager[None]:
        return inference(device or self.state.tokens.device, self.tokenizer, self.dynamics)

    def _checked(self, codes: Tensor | np.ndarray | Sequence | int) -> Int[Tensor, "*S"]:
        return codes_of(codes, self.quantizer.num_codes).to(self.state.tokens.device)

    @torch.no_grad()
    def _advance(self, state: WorldState, codes: Int[Tensor, B]) -> WorldState:
        """The state after one more frame."""
        length = self.dynamics.config.clip_length
        if state.tokens.shape[1] == length:
            state = self._slide(state, keep=max(1, length // 2))
        action = self.quantizer.lookup(codes).to(state.actions.dtype).unsqueeze(1)
        dynamics_cache, decoder_cache = (
            cache and cache.writable() for cache in (state.dynamics_cache, state.decoder_cache)
        )
        state = replace(state, dynamics_cache=dynamics_cache, decoder_cache=decoder_cache)
        tokens, log_prob = self.sampler.sample(
            self.frame_logits(state, action),
            num_patches=self.dynamics.config.num_patches,
            mask_token=self.dynamics.mask_token,
            seed=self.seed,
            samples=self.samples,
            frame=state.num_generated,
            device=state.tokens.device,
            kept_token=self.tokenizer.kept_token(),
        )
        tokens = tokens.unsqueeze(1)
        new = replace(
            state,
            tokens=torch.cat([state.tokens, tokens], dim=1),
            actions=torch.cat([state.actions, action], dim=1),
            num_generated=state.num_generated + 1,
            log_prob=log_prob,
        )
        if dynamics_cache is not None:
            # One more pass over the finished frame: its keys and values must come from its tokens, not from masks.
            context = self.context((state.frame,))
            self.dynamics.hidden(tokens, action, context, dynamics_cache, previous=state.tokens[:, -1:])
            dynamics_cache = dynamics_cache.extended(1)
        frame, gate = self.tokenizer.newest(new.tokens, self.reference, decoder_cache)
        decoder_cache = decoder_cache and decoder_cache.extended(1)
        shown = (*state.shown, frame)
        return replace(new, dynamics_cache=dynamics_cache, decoder_cache=decoder_cache, shown=shown, gate=gate)

    def context(self, before: Sequence[UInt8[Tensor, "B H W 3"]]) -> Float[Tensor, "B T N C"] | None:
        """Input of the dynamics beside the tokens of frames, given the frame before each."""
        return self.tokenizer.context(torch.stack(list(before), dim=1), self.reference)

    def frame_logits(
        self, state: WorldState, action: Float[Tensor, "B 1 L"]
    ) -> Callable[[Int[Tensor, "B N"]], Float[Tensor, "B N V"]]:
        """A function from the new frame's tokens (B, N) to its logits (B, N, V)."""
        dynamics, cache = self.dynamics, state.dynamics_cache
        if cache is not None:
            previous, context = state.tokens[:, -1:], self.context((state.frame,))
            return lambda tokens: dynamics.head(dynamics.hidden(tokens.unsqueeze(1), action, context, cache, previous))[
                :, 0
            ]
        # The reference: the full window of T frames, later ones masked, recomputed at every step.
        batch, now, _ = state.tokens.shape
        length = dynamics.config.clip_length
        window = torch.full_like(state.tokens[:, :1], dynamics.mask_token).repeat(1, length, 1)
        window[:, :now] = state.tokens
        actions = torch.zeros(batch, length, action.shape[-1], dtype=action.dtype, device=action.device)
        actions[:, :now], actions[:, now] = state.actions, action[:, 0]
        context = self.context((state.shown[0], *state.shown, *(state.frame,) * (length - now - 1)))

        def logits_of(tokens: Tensor) -> Tensor:
            window[:, now] = tokens
            return dynamics.logits(window, actions, context)[:, now]

        return logits_of

    @torch.no_grad()
    def prime(
        self, tokens: Int[Tensor, "B t N"], actions: Float[Tensor, "B t L"], num_generated: int = 0
    ) -> WorldState:
        """The state after a window of given tokens, with both caches."""
        num, length = tokens.shape[:2]
        with self._inference(tokens.device):
            of_dynamics = self.dynamics.transformer.new_cache(num) if self.use_cache else None
            of_decoder = self.tokenizer.new_cache(num) if self.use_cache else None
            frames, gates = self.tokenizer.decode_with_gate(tokens, self.reference, of_decoder)
            shown = frames.unbind(1)
            if of_dynamics is not None:
                self.dynamics.hidden(tokens, actions, self.context((shown[0], *shown[:-1])), of_dynamics)
        of_dynamics, of_decoder = (cache and cache.extended(length) for cache in (of_dynamics, of_decoder))
        gate, log_prob = None if gates is None else gates[:, -1], torch.zeros(num, device=tokens.device)
        return WorldState(tokens, actions, of_dynamics, of_decoder, num_generated, shown, gate, log_prob)

    def _slide(self, state: WorldState, keep: int) -> WorldState:
        """The state with a window of the last `keep` frames."""
        actions = state.actions[:, -keep:].clone()
        actions[:, 0] = 0  # the model does not know what led to the first frame of a window, in training as here
        return self.prime(state.tokens[:, -keep:], actions, state.num_generated)
