"""The training loop, the same for every stage.

A stage is a module that turns clips into a loss (training.stages), and a StageConfig. Everything a step depends on is
a function of (seed, stage, step): the clips, the masks, the revived codes. So the same command, run again, goes on
where it was cut.
"""

import math
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import DataLoader

from genie_datasets import ClipDataset, EpochSampler
from genie_datasets.base.errors import UserError
from genie_robotics.genie import Genie
from genie_robotics.health.findings import Finding
from genie_robotics.models.distributed import mean_over_processes, together
from genie_robotics.models.layers.st_transformer import STBlock, STTransformer
from genie_robotics.models.quantizers.codebook import Codebook
from genie_robotics.run_folder import digest, on_cpu, read_tensors, save_component, write_atomically
from genie_robotics.training.averaging import Average
from genie_robotics.training.checkpoint import Checkpoints, load_module_state, module_state
from genie_robotics.training.config import LoopConfig, StageConfig, check, check_batch
from genie_robotics.training.distributed import Setup
from genie_robotics.training.labels import LabelTeacher
from genie_robotics.training.monitor import Monitor
from genie_robotics.training.optimizer import Optimizers, rate_at
from genie_robotics.training.sentinel import Sentinel
from genie_robotics.training.sharding import check_sharding, shard, whole, whole_state
from genie_robotics.training.stages import TRAINED, DynamicsStage, build_stage, last_stage, needs
from genie_robotics.training.token_cache import TokenCache


class Trainer:
    """Trains one stage of `genie` (training.stages) on clips (uint8, (T, H, W, 3)).

    Args:
        seconds: ends the stage after this training time instead of after `config.steps`; the learning rate follows
            the clock.
        mode: which losses a joint stage has.
        labels: true actions that teach the latent action model beside the clips, in a stage that trains it.
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
        labels: LabelTeacher | None = None,
    ):
        check(config, stage)
        check_batch(config, stage, setup.world_size, labels is not None)
        self.genie, self.stage, self.clips, self.config = genie, stage, clips, config
        self.run, self.setup, self.loop, self.seconds, self.mode = run, setup, loop, seconds, mode
        self.labels = labels
        self.module = build_stage(genie, stage, mode)
        if labels is not None:
            self.module = labels.beside(self.module)
        self.sharded = loop.sharding == "full"
        if self.sharded:
            check_sharding(genie.config, config, stage, setup.world_size, labels is not None)
            shard(self.module, setup.precision, setup.device)
            for name in needs(stage, mode, genie.config.latent_action.input):
                getattr(genie, name).to(setup.device)
        self.trained = {name: getattr(genie, name) for name in TRAINED[stage]}
        self.codebooks = [m for part in self.trained.values() for m in part.modules() if isinstance(m, Codebook)]
        self.optimizers = Optimizers(self.module, config)
        self.step = 0
        self.began_at_step: int | None = None  # of this call; None until it looked for a checkpoint
        self.elapsed = 0.0
        self.average = Average(self.module, config.ema)
        steps_per_epoch = math.ceil(len(clips) / config.batch_size)
        self.sentinel = Sentinel(genie, stage, TRAINED[stage], steps_per_epoch=steps_per_epoch)
        self.checkpoints = Checkpoints(run / "state" / stage, loop.keep, loop.keep_every)
        self.sampler = EpochSampler.of(clips, loop.seed, setup.rank, setup.world_size)
        self.token_cache: TokenCache | None = None  # opened where training begins

    @property
    def progress(self) -> float:
        """Share of the stage that is done, 0 .. 1."""
        done = self.elapsed / self.seconds if self.seconds else self.step / self.config.steps
        return min(1.0, done)

    def train(self) -> bool:
        """Trains to the end; returns False when an earlier call already had."""
        if self.began_at_step is None:
            self.resume()
        if self.progress >= 1 and not self.lacks_codes:
            self.finish()
            return False
        if self.setup.is_main:
            self.run.mkdir(parents=True, exist_ok=True)
        monitor = Monitor(
            self.run, self.stage, self.loop.log_every, self.loop.loggers, self.loop.quiet or not self.setup.is_main
        )
        self.token_cache = self.open_token_cache()
        prepared = prepare(self.module, self.loop)
        module = prepared if self.sharded else self.setup.wrap(prepared)
        loader = iter(self.loader())
        began, before = time.monotonic(), self.elapsed
        try:
            while self.progress < 1 or self.lacks_codes:
                frames = next(loader)
                values, rate = self.train_step(module, frames)
                self.step += 1
                self.elapsed = self.setup.broadcast(before + time.monotonic() - began)
                self.sentinel.observe(self.step, values)
                finite = is_finite(values["loss"], values["grad_norm"])
                if self.setup.is_main:
                    done = max(1e-9, self.progress - self.progress_at(before))
                    left = (time.monotonic() - began) * (1 - self.progress) / done
                    num_frames = self.config.batch_size * self.genie.config.clip_length
                    figures, findings = self.look(frames, finite)
                    monitor.step(self.step, self.progress, left, num_frames, rate, values, findings, figures)
                if not finite:
                    kept = "the last checkpoint is kept" if self.checkpoints.found() else "there is no checkpoint yet"
                    raise UserError(
                        f"{self.stage}: loss {float(values['loss'])}, gradient {float(values['grad_norm'])} at step "
                        f"{self.step}; {kept}. Lower --training.{self.stage.replace('_', '-')}.learning-rate (and "
                        ".matrix-rate) and run the same command again"
                    )
                if self.step % self.loop.save_every == 0:
                    self.save()
        finally:
            monitor.close()
            if self.token_cache is not None:
                self.token_cache.close()
        if self.step % self.loop.save_every:
            self.save()
        self.finish()
        return True

    def look(self, frames: Tensor, finite: bool) -> tuple[dict[str, float], list[Finding]]:
        """What the sentinel sees: now and then, at the end, and where training is about to stop."""
        due = self.loop.watch_every and (self.step % self.loop.watch_every == 0 or self.progress >= 1)
        if (finite and not due) or self.sharded:  # the first process alone, which looks, has not got the model
            return {}, []
        with torch.compiler.set_stance("force_eager"):  # other shapes than training's are not worth compiling
            return self.sentinel.look(self.step, frames, self.progress)

    def finish(self) -> None:
        """Leaves the result in `genie`, and in the run folder unless it is there: a kill may have come in between."""
        self.average.copy_to(self.module)
        self.module.eval()
        weights: dict[str, dict[str, Tensor] | None] = dict.fromkeys(self.trained)
        if self.sharded:
            weights = {name: whole_state(part, self.setup.is_main) for name, part in self.trained.items()}
        if self.setup.is_main:
            self.checkpoints.retire(self.step)
            # What a later stage of this mode has trained on and published is no longer this one's.
            later = {n: self.run / "state" / last_stage(n, self.mode) / "published" for n in self.trained}
            mine = [n for n, mark in later.items() if mark.parent == self.checkpoints.folder or not mark.exists()]
            mark = self.checkpoints.folder / "published"
            if not (is_published(mark, self.step) and all(is_whole(self.run, name) for name in mine)):
                for name in mine:
                    save_component(self.trained[name], self.run / name, weights=weights[name])
                write_atomically(mark, str(self.step).encode())
        self.setup.barrier()

    def progress_at(self, elapsed: float) -> float:
        """Progress when this call began, for the time left."""
        return min(1.0, elapsed / self.seconds) if self.seconds else (self.began_at_step or 0) / self.config.steps

    @property
    def lacks_codes(self) -> bool:
        """A run by time whose steps are long may end before one begins in which codes are due: it takes one more."""
        due = (book for book in self.codebooks if book.config.start_share <= 1)
        return bool(self.seconds) and not all(book.started for book in due)

    def train_step(self, module: nn.Module, frames: Tensor) -> tuple[dict[str, Tensor], float]:
        """One optimizer step; returns what to log and the share of the peak learning rate."""
        rate = rate_at(self.progress, self.step, self.config)
        last = not self.seconds and self.step + 1 >= self.config.steps  # so that the shortest run too ends with codes
        parts = frames.to(self.setup.device, non_blocking=True).chunk(self.config.accumulate)
        for book in self.codebooks:
            book.progress = 1.0 if last else self.progress
            book.begin_step()
        if "latent_action" in self.trained:
            self.genie.latent_action.look_ahead(parts)
        logs = [self.backward(module, some, number, len(parts)) for number, some in enumerate(parts)]
        if "latent_action" in self.trained:
            self.genie.latent_action.look_ahead(())
        shown = {name: torch.stack([log[name] for log in logs if name in log]).mean(0) for name in logs[-1]}
        # Each component by itself: what one learns must not depend on how large the other's gradient is.
        learning = [*self.trained.values(), *([self.labels.head] if self.labels is not None else [])]
        norms = [nn.utils.clip_grad_norm_(part.parameters(), self.config.clip_gradient) for part in learning]
        norm = torch.stack([whole(norm) for norm in norms]).max()
        if is_finite(shown["loss"], norm):  # else the weights stay what they are, and training stops
            self.optimizers.step(rate)
            self.average.update(self.step)
        return {**shown, "grad_norm": norm}, rate

    def backward(self, module: nn.Module, frames: Tensor, part: int, parts: int) -> dict[str, Tensor]:
        """Adds the gradient of one of the `parts` of a step's clips; returns what to log, of all processes."""
        setup, labels = self.setup, self.labels
        labelled = labels.batch(self.step, setup.rank, setup.world_size) if labels is not None else None
        is_last = part + 1 == parts
        for book in self.codebooks:
            book.more = not is_last
        common, own = (
            step_seed(self.loop.seed, self.stage, self.step, number)
            for number in (0, setup.rank + part * setup.world_size)
        )
        with together(common, own, setup.device, part, parts), setup.exchange(module, now=is_last):
            with setup.autocast():
                beside = self.known_codes(frames, part) if self.token_cache is not None else labelled
                loss, logs = module(frames) if beside is None else module(frames, beside)
            (loss / parts).backward()
            logs = {"loss": loss.detach(), **logs}
            shown = mean_over_processes(torch.stack([value.float() for value in logs.values()]))
        return dict(zip(logs, shown, strict=True))

    def open_token_cache(self) -> TokenCache | None:
        """Raises UserError where the disk has not got the room."""
        if not self.loop.token_cache or not isinstance(self.module, DynamicsStage):
            return None
        config = self.genie.config
        key = f"{self.clips.fingerprint} {self.clips.stamp} {self.inputs['tokenizer']} {self.inputs['latent_action']}"
        books = config.tokenizer.codebook.num_codes, config.num_actions
        found = TokenCache(key, len(self.clips), config.clip_length, config.dynamics.num_patches, *books)
        if self.setup.is_main and not self.loop.quiet:
            print(f"token cache: {found.path}, {found.num_bytes / 1e6:.1f} MB when all clips have been met")
        return found

    def known_codes(self, frames: Tensor, part: int) -> tuple[Tensor, Tensor]:
        """Tokens and latent actions of a part of this step's clips, from the token cache or put there."""
        assert self.token_cache is not None
        assert isinstance(self.module, DynamicsStage)
        num = len(frames)
        clips = self.sampler.batch(self.step, num * self.config.accumulate)[part * num : (part + 1) * num]
        found = self.token_cache.get(clips)
        if found is None:
            found = self.module.codes(frames)
            self.token_cache.put(clips, *found)
        tokens, actions = found
        return tokens.to(frames.device), actions.to(frames.device)

    def loader(self) -> DataLoader:
        return DataLoader(
            self.clips,
            batch_sampler=self.sampler.batches(self.config.batch_size // self.setup.world_size, self.step),  # type: ignore[arg-type]
            num_workers=self.loop.workers,
            pin_memory=self.setup.device.type == "cuda",
        )

    def resume(self, loaded: Sequence[str] = ()) -> None:
        """Takes up the newest checkpoint, if there is one.

        Args:
            loaded: components that come from the run folder, not from an earlier stage of this call. What this stage
                has already put there itself is not what it began with, and is not compared.

        Raises:
            UserError: it is damaged, or of other options, or the components that this stage builds on have changed.
        """
        self.began_at_step = 0
        layout = self.layout() if self.sharded else None
        found = self.checkpoints.newest(print if self.setup.is_main else lambda _: None, layout)
        # As they are before this stage moves them: a stage that is done must not go with a tokenizer of later.
        needed = needs(self.stage, self.mode, self.genie.config.latent_action.input)
        self.inputs = {name: digest(self.state_of(getattr(self.genie, name))) for name in needed}
        if found is None:
            return
        self.step, content = found
        self.began_at_step, self.elapsed = self.step, content["elapsed"]
        if (self.checkpoints.folder / "published").exists():
            self.inputs |= {name: content["inputs"][name] for name in loaded if name in self.trained}
        changed = [name for name, value in self.inputs.items() if content["inputs"].get(name) != value]
        if changed:
            raise UserError(
                f"{self.checkpoints.folder} was trained on another {changed[0]} than {self.run} now has; "
                f"delete that folder to train {self.stage} anew, or bring the {changed[0]} back"
            )
        stored, own = (content.get("labels") or {}).get("digest"), self.labels.digest if self.labels else None
        if stored != own:
            raise UserError(
                f"{self.checkpoints.folder} was trained with {f'labels {stored}' if stored else 'no labels'}, not "
                f"{f'with labels {own}' if own else 'without any'}: give the same --labels, or delete that folder to "
                "train this stage anew"
            )
        for name, part in self.trained.items():
            load_module_state(part, content["components"][name], self.checkpoints.folder)
        try:
            self.optimizers.load_state_dict(content["optimizers"])
            self.average.load_state_dict(content["average"])
        except ValueError as error:
            raise UserError(
                f"{self.checkpoints.folder} was trained with other options ({error}); "
                "give the same ones, or delete it to train this stage anew"
            ) from None
        if self.labels is not None:
            self.labels.load_state_dict(content["labels"])
        self.sentinel.load_state_dict(content["sentinel"])

    def save(self) -> None:
        if self.setup.is_main or self.sharded:
            content = {
                "components": {name: module_state(part) for name, part in self.trained.items()},
                "optimizers": self.optimizers.state_dict(),
                "average": self.average.state_dict(),
                "sentinel": self.sentinel.state_dict(),
                "elapsed": self.elapsed,
                "inputs": self.inputs,
            }
            if self.labels is not None:
                content["labels"] = self.labels.state_dict()
            self.checkpoints.save(self.step, content)

    def state_of(self, part: nn.Module) -> dict[str, Tensor]:
        return whole_state(part, keep=True) if self.sharded else on_cpu(part)

    def layout(self) -> dict[str, Any]:
        """How what `save` saves is cut here."""
        return {
            "components": {name: {"model": part.state_dict()} for name, part in self.trained.items()},
            "optimizers": self.optimizers.layout(),
            "average": self.average.state_dict(),
        }


def is_finite(loss: Tensor, norm: Tensor) -> bool:
    """Whether a step may be taken. The same on all ranks: a bad loss on one makes bad gradients on every one."""
    return bool(torch.isfinite(loss.detach() + norm))


def prepare(module: nn.Module, loop: LoopConfig) -> nn.Module:
    """The module, computed as the loop options want it."""
    for part in module.modules():
        if isinstance(part, STTransformer):
            part.checkpoint_activations = loop.checkpoint_activations
        if isinstance(part, STBlock) and loop.compile:
            part.compile()
    return module


def is_published(mark: Path, step: int) -> bool:
    return mark.exists() and mark.read_bytes() == str(step).encode()


def is_whole(run: Path, name: str) -> bool:
    """The run folder holds this component, undamaged."""
    try:
        read_tensors(run / name / "model.safetensors")
    except (UserError, SafetensorError, OSError):
        return False
    return (run / name / "config.json").exists()


def step_seed(seed: int, stage: str, step: int, rank: int) -> int:
    return zlib.crc32(f"{seed}/{stage}/{step}/{rank}".encode())
