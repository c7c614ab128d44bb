"""The training loop, the same for every stage.

A stage is a module that turns clips into a loss (stages.py), and a StageConfig. Everything a step depends on is a
function of (seed, stage, step): the clips, the masks, the replaced codes. So rerunning the same command resumes an
interrupted run and ends where an uninterrupted one would.
"""

import math
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from safetensors import SafetensorError
from torch import Tensor, nn

from genie_datasets import ClipDataset, EpochSampler, ReferencedClips
from genie_datasets.base.errors import UserError
from genie_datasets.base.files import write_atomically
from genie_robotics.genie import Genie
from genie_robotics.health.findings import Finding
from genie_robotics.models.compilation import compiled_blocks, why_not_compiled
from genie_robotics.models.distributed import mean_over_processes, step_context
from genie_robotics.models.layers.st_transformer import STTransformer
from genie_robotics.models.quantizers import Quantizer
from genie_robotics.run_folder import digest, on_cpu, read_tensors, save_component
from genie_robotics.training.averaging import Average
from genie_robotics.training.checkpoint import Checkpoints, load_module_state, module_state
from genie_robotics.training.config import LoopConfig, StageConfig, check, check_batch
from genie_robotics.training.distributed import Setup
from genie_robotics.training.health_checks import HealthChecks
from genie_robotics.training.labels import LabelSupervision
from genie_robotics.training.monitor import Monitor
from genie_robotics.training.optimizer import Optimizers, rate_at
from genie_robotics.training.prefetch import iter_batches
from genie_robotics.training.sharding import check_sharding, full_state, full_tensor, shard
from genie_robotics.training.stages import STAGES, DynamicsStage, last_stage
from genie_robotics.training.token_cache import TokenCache


class Trainer:
    """Trains one stage of `genie` (stages.py) on clips (uint8, (T, H, W, 3)).

    Args:
        seconds: ends the stage after this training time instead of after `config.steps`; the learning rate follows
            the clock.
        mode: training mode, which decides the losses of a joint stage.
        labels: true actions that also teach the latent action model, in a stage that trains it.
    """

    def __init__(
        self,
        genie: Genie,
        stage: str,
        clips: ClipDataset,
        config: StageConfig,
        run: Path,
        setup: Setup,
        loop: LoopConfig,
        seconds: float | None = None,
        mode: str = "frozen",
        labels: LabelSupervision | None = None,
    ):
        check(config, stage)
        check_batch(config, stage, setup.world_size, labels is not None)
        self.genie, self.stage, self.config = genie, stage, config
        self.run, self.setup, self.loop, self.seconds, self.mode = run, setup, loop, seconds, mode
        self.labels = labels
        kind = STAGES[stage]
        span = genie.config.tokenizer.reference_span
        self.clips = ReferencedClips(clips, span) if kind.has_reference(genie.config) else clips
        self.module: nn.Module = kind(genie, mode)
        self.split = self.module.split
        if labels is not None:
            self.module = labels.wrap(self.module)
        self.sharded = loop.sharding == "full"
        if self.sharded:
            check_sharding(genie.config, config, stage, setup.world_size, labels is not None)
            shard(self.module, setup.precision, setup.device)
            for name in kind.needs(genie.config, mode):
                getattr(genie, name).to(setup.device)
        self.trained = {name: getattr(genie, name) for name in kind.trains}
        self.quantizers = [m for part in self.trained.values() for m in part.modules() if isinstance(m, Quantizer)]
        self.optimizers = Optimizers(self.module, config, setup.precision)
        self.step = 0
        self.first_step: int | None = None  # of this call; None before `resume`
        self.elapsed = 0.0
        self.average = Average(self.module, config.ema)
        steps_per_epoch = math.ceil(len(clips) / config.batch_size)
        self.health = HealthChecks(genie, kind, mode, steps_per_epoch=steps_per_epoch)
        self.checkpoints = Checkpoints(run / "state" / stage, loop.keep, loop.keep_every)
        self.sampler = EpochSampler.of(clips, loop.seed, setup.rank, setup.world_size)
        self.token_cache: TokenCache | None = None  # opened when training begins

    @property
    def progress(self) -> float:
        """Fraction of the stage that is done, 0 .. 1."""
        done = self.elapsed / self.seconds if self.seconds else self.step / self.config.steps
        return min(1.0, done)

    def train(self) -> bool:
        """Trains to the end; returns False if the stage was already trained."""
        if self.first_step is None:
            self.resume()
        if self.progress >= 1 and not self.lacks_codes:
            self.finish()
            return False
        if self.setup.is_main:
            self.run.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            quiet = self.loop.quiet or not self.setup.is_main
            monitor = Monitor(self.run, self.stage, self.loop.log_every, self.loop.loggers, quiet)
            stack.callback(monitor.close)
            self.token_cache = self.open_token_cache()
            if self.token_cache is not None:
                stack.callback(self.token_cache.close)
            self.compile(monitor, stack)
            prepared = prepare(self.module, self.loop)
            self.take_steps(prepared if self.sharded else self.setup.wrap(prepared), monitor)
        if self.step % self.loop.save_every:
            self.save()
        self.finish()
        return True

    def compile(self, monitor: Monitor, stack: ExitStack) -> None:
        """Compiles the blocks of this stage's components until `stack` closes, if the options ask for it."""
        if not self.loop.compiles(self.config.steps, self.seconds) or (self.sharded and self.loop.compile == "auto"):
            return  # compilation of sharded blocks is not tested
        lack = why_not_compiled(self.setup.device)
        said = "compiling the transformer blocks (10 to 60 s the first time on a machine)"
        if lack is None:
            stack.enter_context(compiled_blocks(self.genie))
        elif self.loop.compile == "yes":
            raise UserError(f"--compile yes: {lack}; install it, or pass --compile no")
        else:
            said = f"not compiled ({lack}), so steps are slower"
        if self.setup.is_main and not self.loop.quiet:
            monitor.say(f"{self.stage}: {said}")

    def take_steps(self, module: nn.Module, monitor: Monitor) -> None:
        """Trains until the stage is done."""
        loader = self.loader()
        began, before = time.monotonic(), self.elapsed
        unchecked: list[tuple[int, dict[str, Tensor]]] = []
        while self.progress < 1 or self.lacks_codes:
            frames = next(loader)
            values, rate = self.train_step(module, frames)
            self.step += 1
            self.elapsed = before + time.monotonic() - began
            if self.seconds:  # the clock decides when the stage ends, for all processes at once
                self.elapsed = self.setup.broadcast(self.elapsed)
            self.health.observe(self.step, values)
            unchecked.append((self.step, values))
            saves = self.step % self.loop.save_every == 0
            # To look at a loss waits for the GPU, so several are looked at together.
            look = self.setup.device.type == "cpu" or self.step % self.loop.log_every == 0 or saves
            failed = self.first_not_finite(unchecked) if look or self.progress >= 1 else None
            if look:
                unchecked = []
            if self.setup.is_main:
                done = max(1e-9, self.progress - self.progress_at(before))
                left = (time.monotonic() - began) * (1 - self.progress) / done
                num_frames = self.config.batch_size * self.genie.config.clip_length
                figures, findings = self.check_health(frames, failed is None)
                monitor.step(self.step, self.progress, left, num_frames, rate, values, findings, figures)
            if failed is not None:
                raise self.not_finite(*failed)
            if saves:
                self.save()

    @staticmethod
    def first_not_finite(steps: list[tuple[int, dict[str, Tensor]]]) -> tuple[int, dict[str, Tensor]] | None:
        """The first of these (step, values) whose loss or gradient is not finite. Equal on all ranks: a bad loss on
        one makes bad gradients on all."""
        finite = torch.stack([is_finite(values["loss"], values["grad_norm"]) for _, values in steps]).tolist()
        return next((step for step, good in zip(steps, finite, strict=True) if not good), None)

    def not_finite(self, step: int, values: dict[str, Tensor]) -> UserError:
        kept = "the last checkpoint is kept" if self.checkpoints.paths() else "there is no checkpoint yet"
        return UserError(
            f"{self.stage}: loss {float(values['loss'])} and gradient norm {float(values['grad_norm'])} at step "
            f"{step} are not finite ({kept}); lower --training.{self.stage.replace('_', '-')}.learning-rate and "
            ".muon-learning-rate and rerun the command"
        )

    def check_health(self, frames: Tensor, finite: bool) -> tuple[dict[str, float], list[Finding]]:
        """Figures and findings, every `health_every` steps, at the end and before training stops."""
        due = self.loop.health_every and (self.step % self.loop.health_every == 0 or self.progress >= 1)
        if (finite and not due) or self.sharded:  # rank 0 alone checks, and does not have a sharded model
            return {}, []
        with torch.compiler.set_stance("force_eager"):  # other shapes than training's are not worth compiling
            return self.health.check(self.step, *self.split(frames), progress=self.progress)

    def finish(self) -> None:
        """Leaves the result in `genie`, and in the run folder unless it is already there."""
        self.average.copy_to(self.module)
        self.module.eval()
        weights: dict[str, dict[str, Tensor] | None] = dict.fromkeys(self.trained)
        if self.sharded:
            weights = {name: full_state(part, self.setup.is_main) for name, part in self.trained.items()}
        if self.setup.is_main:
            self.checkpoints.remove_old(self.step)
            # A component that a later stage of this mode has trained and published stays as that stage left it.
            later = {n: self.run / "state" / last_stage(n, self.mode) / "published" for n in self.trained}
            mine = [n for n, mark in later.items() if mark.parent == self.checkpoints.folder or not mark.exists()]
            mark = self.checkpoints.folder / "published"
            if not (is_published(mark, self.step) and all(is_undamaged(self.run, name) for name in mine)):
                for name in mine:
                    save_component(self.trained[name], self.run / name, weights=weights[name])
                write_atomically(mark, str(self.step).encode())
        self.setup.barrier()

    def progress_at(self, elapsed: float) -> float:
        """Progress at the start of this call, from which the remaining time is estimated."""
        return min(1.0, elapsed / self.seconds) if self.seconds else (self.first_step or 0) / self.config.steps

    @property
    def lacks_codes(self) -> bool:
        """True for a run by time that ended before its codes were due: it takes one more step."""
        due = (q for q in self.quantizers if q.config.vq.quantize_after_fraction <= 1)
        return bool(self.seconds) and not all(quantizer.started for quantizer in due)

    def train_step(self, module: nn.Module, frames: Tensor) -> tuple[dict[str, Tensor], float]:
        """One optimizer step; returns the values to log and the fraction of the peak learning rate."""
        rate = rate_at(self.progress, self.step, self.config)
        last = not self.seconds and self.step + 1 >= self.config.steps  # so that the shortest run too ends with codes
        for quantizer in self.quantizers:
            quantizer.prepare_step(1.0 if last else self.progress)
        micro_batches = frames.to(self.setup.device, non_blocking=True).chunk(self.config.micro_batches)
        logs = [self.backward(module, clips, number) for number, clips in enumerate(micro_batches)]
        values = {name: torch.stack([log[name] for log in logs if name in log]).mean(0) for name in logs[-1]}
        # Each component by itself: its clipping must not depend on how large the other's gradient is.
        learning = [*self.trained.values(), *([self.labels.head] if self.labels is not None else [])]
        norms = [nn.utils.clip_grad_norm_(part.parameters(), self.config.clip_gradient) for part in learning]
        norm = torch.stack([full_tensor(norm) for norm in norms]).max()
        self.optimizers.step(rate, is_finite(values["loss"], norm))
        self.average.update(self.step)
        return {**values, "grad_norm": norm}, rate

    def backward(self, module: nn.Module, frames: Tensor, number: int) -> dict[str, Tensor]:
        """Adds the gradient of micro-batch `number` of a step; returns the values to log, means over all processes."""
        setup, labels, num = self.setup, self.labels, self.config.micro_batches
        labeled = labels.batch(self.step, setup.rank, setup.world_size) if labels is not None else None
        is_last = number + 1 == num
        shared, own = (  # the shared stream is that of a single process
            step_seed(self.loop.seed, self.stage, self.step, stream)
            for stream in (number, setup.rank + number * setup.world_size)
        )
        with step_context(shared, own, setup.device, updates_state=is_last), setup.sync_gradients(module, now=is_last):
            with setup.autocast():
                known = self.known_codes(frames, number) if self.token_cache is not None else labeled
                loss, logs = module(frames) if known is None else module(frames, known)
            (loss / num).backward()
            logs = {"loss": loss.detach(), **logs}
            values = mean_over_processes(torch.stack([value.float() for value in logs.values()]))
        return dict(zip(logs, values, strict=True))

    def open_token_cache(self) -> TokenCache | None:
        """Raises UserError if there is not enough disk space."""
        if not self.loop.token_cache or not isinstance(self.module, DynamicsStage):
            return None
        config = self.genie.config
        key = f"{self.clips.fingerprint} {self.clips.stamp} {self.inputs['tokenizer']} {self.inputs['latent_action']}"
        sizes = config.tokenizer.quantizer.num_codes, config.num_actions
        found = TokenCache(key, len(self.clips), config.clip_length, config.dynamics.num_patches, *sizes)
        if self.setup.is_main and not self.loop.quiet:
            print(f"token cache: {found.path}, {found.num_bytes / 1e6:.1f} MB when it holds all clips")
        return found

    def known_codes(self, frames: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Tokens and latent actions of micro-batch `number`, from the token cache or computed and put there."""
        assert self.token_cache is not None
        assert isinstance(self.module, DynamicsStage)
        num = len(frames)
        clips = self.sampler.batch(self.step, num * self.config.micro_batches)[number * num : (number + 1) * num]
        found = self.token_cache.get(clips)
        if found is None:
            found = self.module.codes(frames)
            self.token_cache.put(clips, *found)
        tokens, actions = found
        return tokens.to(frames.device), actions.to(frames.device)

    def loader(self) -> Iterator[Tensor]:
        """The batches of clips of this rank, from the current step on."""
        batches = self.sampler.batches(self.config.batch_size // self.setup.world_size, self.step)
        return iter_batches(self.clips, batches, self.setup.device, self.loop.workers)

    def resume(self, loaded: Sequence[str] = ()) -> None:
        """Loads the newest checkpoint, if there is one.

        Args:
            loaded: components that come from the run folder, not from an earlier stage of this call. Those that this
                stage has already published itself are not compared with what it started from.

        Raises:
            UserError: the checkpoint is damaged or has other options, or the components that this stage builds on have
                changed.
        """
        self.first_step = 0
        layout = self.layout() if self.sharded else None
        found = self.checkpoints.newest(print if self.setup.is_main else lambda _: None, layout)
        # Digests before this stage changes anything: a finished stage must not be combined with a later tokenizer.
        needed = STAGES[self.stage].needs(self.genie.config, self.mode)
        self.inputs = {name: digest(self.state_of(getattr(self.genie, name))) for name in needed}
        if found is None:
            return
        self.step, content = found
        self.first_step, self.elapsed = self.step, content["elapsed"]
        if (self.checkpoints.folder / "published").exists():
            self.inputs |= {name: content["inputs"][name] for name in loaded if name in self.trained}
        self.check_checkpoint(content)
        for name, part in self.trained.items():
            load_module_state(part, content["components"][name], self.checkpoints.folder)
        try:
            self.optimizers.load_state_dict(content["optimizers"])
            self.average.load_state_dict(content["average"])
        except ValueError as error:
            raise UserError(
                f"{self.checkpoints.folder} was trained with other options ({error}); "
                "pass the same ones, or delete it to retrain this stage"
            ) from None
        if self.labels is not None:
            self.labels.load_state_dict(content["labels"])
        self.health.load_state_dict(content["health"])

    def check_checkpoint(self, content: dict[str, Any]) -> None:
        """Raises UserError if the checkpoint belongs to other inputs or other labels."""
        folder = self.checkpoints.folder
        changed = [name for name, value in self.inputs.items() if content["inputs"].get(name) != value]
        if changed:
            raise UserError(
                f"{folder} was trained on another {changed[0]} than {self.run} now has; "
                f"delete that folder to retrain {self.stage}, or restore the {changed[0]}"
            )
        stored, own = (content.get("labels") or {}).get("digest"), self.labels.digest if self.labels else None
        if stored != own:
            raise UserError(
                f"{folder} was trained with {f'labels {stored}' if stored else 'no labels'}, this run has "
                f"{f'labels {own}' if own else 'none'}; pass the same --labels, or delete that folder to retrain this "
                "stage"
            )

    def save(self) -> None:
        """Writes a checkpoint."""
        if self.setup.is_main or self.sharded:
            content = {
                "components": {name: module_state(part) for name, part in self.trained.items()},
                "optimizers": self.optimizers.state_dict(),
                "average": self.average.state_dict(),
                "health": self.health.state_dict(),
                "elapsed": self.elapsed,
                "inputs": self.inputs,
            }
            if self.labels is not None:
                content["labels"] = self.labels.state_dict()
            self.checkpoints.save(self.step, content)

    def state_of(self, part: nn.Module) -> dict[str, Tensor]:
        return full_state(part, keep=True) if self.sharded else on_cpu(part)

    def layout(self) -> dict[str, Any]:
        """How the content of a checkpoint is sharded in this run."""
        return {
            "components": {name: {"model": part.state_dict()} for name, part in self.trained.items()},
            "optimizers": self.optimizers.layout(),
            "average": self.average.state_dict(),
        }


def is_finite(loss: Tensor, norm: Tensor) -> Bool[Tensor, ""]:
    """True if the optimizer may take the step."""
    return torch.isfinite(loss.detach() + norm)


def prepare(module: nn.Module, loop: LoopConfig) -> nn.Module:
    """The module with activation checkpointing as the loop options ask."""
    for part in module.modules():
        if isinstance(part, STTransformer):
            part.checkpoint_activations = loop.checkpoint_activations
    return module


def is_published(mark: Path, step: int) -> bool:
    return mark.exists() and mark.read_bytes() == str(step).encode()


def is_undamaged(run: Path, name: str) -> bool:
    """True if the run folder holds this component, undamaged."""
    try:
        read_tensors(run / name / "model.safetensors")
    except (UserError, SafetensorError, OSError):
        return False
    return (run / name / "config.json").exists()


def step_seed(seed: int, stage: str, step: int, stream: int) -> int:
    return zlib.crc32(f"{seed}/{stage}/{step}/{stream}".encode())
