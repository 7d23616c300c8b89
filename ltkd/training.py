"""The training loop, one for teacher and student: seeded, resumable, every loss term logged.

Accelerate chooses the device and the number format, and joins processes; nothing here changes
between a laptop and several GPUs.
"""

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from . import processes
from .batches import Batches
from .compiling import compiled
from .files import progress, unread, write_atomically
from .mixing import Batch
from .optimizers import computes_in_bfloat16, optimizer_for
from .schedules import SMALL, Schedule


class Step(NamedTuple):
    """Where the training stands."""

    epoch: int  # from 0
    index: int  # type: ignore[assignment]  # of the batch in its epoch; hides tuple.index
    done: float  # share of the training, 0..1


# (batch, patch logits (B, P, C), step) → named loss terms, to be added up
Objective = Callable[[Batch, Tensor, Step], dict[str, Tensor]]


class TrainingError(Exception):
    """Training cannot go on; the message says at which epoch, and what to do."""


def accelerator_for(precision: str) -> Accelerator:
    """An Accelerator in bfloat16 where `precision` is "bf16" and the device computes in it.

    Accelerate keeps one precision per Python process; a notebook trains at several, so the
    former choice is forgotten first. Process group and device stay as they are.
    """
    AcceleratorState._reset_state(reset_partial_state=False)
    device = processes.start().device
    bf16 = precision == "bf16" and computes_in_bfloat16(device)
    return Accelerator(mixed_precision="bf16" if bf16 else "no", cpu=device.type == "cpu")


def seed_epoch(seed: int, role: str, epoch: int) -> None:
    """Seed torch's global generator from (seed, role, epoch): a resumed run goes on alike."""
    words = [seed, *role.encode(), epoch]
    torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))


def rate(step: int, steps: int, warmup: float, decay: str = "cosine") -> float:
    """Learning rate at `step` as a share of its peak: a linear rise, then a fall to 0.

    >>> [round(rate(step, 8, 0.25), 2) for step in (0, 1, 2, 5, 8)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    done = (step - rise) / max(1, steps - rise)
    return 1 - done if decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))


class Trainer:
    """Trains `network` by `objective` over `batches`, by the schedule; see `fit`.

    Parameters
    ----------
    network : takes uint8 (B, 3, H, W), gives patch logits (B, P, C)
    objective : gives the named loss terms of a batch
    state_file : where the state is kept while training runs; None: nowhere
    identity : plain values; a state that has others is not resumed
    repeat : order and augmentation of the batches come again after so many epochs; 0: never

    With several processes the gradients are averaged over them, BatchNorm counts the images of
    all, and the first one writes the state.
    """

    def __init__(
        self,
        network: nn.Module,
        batches: Batches,
        objective: Objective,
        schedule: Schedule,
        accelerator: Accelerator,
        state_file: Path | None,
        identity: dict,
        seed: int = 0,
        role: str = "teacher",
        repeat: int = 0,
    ):
        self.batches, self.objective, self.schedule = batches, objective, schedule
        self.accelerator, self.state_file, self.identity = accelerator, state_file, identity
        self.seed, self.role, self.steps = seed, role, schedule.epochs * len(batches)
        self.repeat = repeat or schedule.epochs
        network = network.to(accelerator.device).to(memory_format=torch.channels_last)
        network = processes.share_batch_norm(network)
        optimizer = optimizer_for(network, schedule)
        average = get_ema_multi_avg_fn(schedule.ema)
        self.plain, self.optimizer = network, optimizer
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0  # spent on the epochs of the history, over all sessions
        self.averaged = (
            AveragedModel(network, multi_avg_fn=average, use_buffers=True) if schedule.ema else None
        )
        prepared = accelerator.prepare_model(network)
        self.network = compiled(prepared) if schedule.compile else prepared
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate(step, self.steps, schedule.warmup, schedule.decay)
        )

    def fit(self) -> list[dict[str, float]]:
        """Train to the last epoch and return the history: mean loss terms per epoch.

        The state is saved after every epoch and taken up again by a later call with the same
        arguments; interrupted or not, the weights come out the same. The caller removes the state
        once the result is safe. The network ends with the averaged weights where the schedule has
        an `ema`. Raises TrainingError where a loss or a weight is no number.
        """
        cuda = [self.accelerator.device] if self.accelerator.device.type == "cuda" else []
        with torch.random.fork_rng(cuda):  # the caller's random numbers stay as they were
            self._resume()
            self._check_together()
            bar = progress(
                range(len(self.history), self.schedule.epochs),
                desc=self.role,
                initial=len(self.history),
                total=self.schedule.epochs,
                unit=" epochs",
            )
            for epoch in bar:
                start = time.perf_counter()
                terms = self._epoch(epoch)
                self.seconds += time.perf_counter() - start
                bar.set_postfix(loss=f"{sum(terms.values()):.3f}")
                self.history.append(terms)
                self._save()
        if self.averaged is not None:
            self._take_average()
        self.plain = self.accelerator.unwrap_model(self.plain, keep_fp32_wrapper=False)
        return self.history

    def _take_average(self) -> None:
        """Give the network the averaged weights; whole numbers, tables of places, have no mean."""
        assert self.averaged is not None
        average, own = self.averaged.module.state_dict(), self.plain.state_dict()
        self.plain.load_state_dict(
            {name: average[name] if v.is_floating_point() else v for name, v in own.items()}
        )

    def _epoch(self, epoch: int) -> dict[str, float]:
        seed_epoch(self.seed, self.role, epoch % self.repeat)
        self.plain.train()
        losses: list[dict[str, Tensor]] = []  # per step; looked at once an epoch, for GPUs' sake
        scale = SMALL if epoch < round(self.schedule.small * self.schedule.epochs) else 1.0
        for index, batch in enumerate(self.batches.epoch(scale)):
            step = Step(epoch, index, (epoch * len(self.batches) + index) / self.steps)
            terms = self.objective(batch, self.network(batch.images), step)
            self.accelerator.backward(sum(terms.values()))
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()
            if self.averaged is not None:
                self.averaged.update_parameters(self.plain)
            losses.append({name: term.detach() for name, term in terms.items()})
        values = processes.mean(torch.stack([torch.stack(list(row.values())) for row in losses]))
        self._check(values, epoch)
        return dict(zip(losses[0], values.mean(0).tolist(), strict=True))

    def _check(self, losses: Tensor, epoch: int) -> None:
        """Raise TrainingError where a loss, (steps, terms), or a weight is no number."""
        wrong = (~losses.isfinite().all(1)).nonzero()
        weights = [w for w in self.plain.state_dict().values() if w.is_floating_point()]
        if len(wrong):
            what, step = "loss", int(wrong[0]) + 1
        elif not torch.stack([weight.isfinite().all() for weight in weights]).all():
            what, step = "weights", len(losses)  # the last step's; the others' make a loss wrong
        else:
            return
        saved = epoch and self.state_file
        kept = f"The state after epoch {epoch} is kept." if saved else "Nothing was saved."
        raise TrainingError(
            f"The {self.role}'s {what} {'is' if what == 'loss' else 'are'} no longer a number at "
            f"step {step} of {len(losses)} in epoch {epoch + 1}: lower the learning rate "
            f"({self.schedule.learning_rate:g}). {kept}"
        )

    def _check_together(self) -> None:
        """Raise TrainingError where not all processes have taken up the same state."""
        done = [rows[0] for rows in processes.gather([len(self.history)])]
        if len(set(done)) > 1:
            folder = self.state_file.parent if self.state_file else ""
            raise TrainingError(
                f"The processes would go on after different epochs ({', '.join(map(str, done))}): "
                f"all machines must see the same folder {folder}."
            )

    def _parts(self) -> dict:
        parts = {"network": self.plain, "optimizer": self.optimizer, "scheduler": self.scheduler}
        return parts | ({"averaged": self.averaged} if self.averaged is not None else {})

    def _save(self) -> None:
        if self.state_file and self.accelerator.is_main_process:
            state = {name: part.state_dict() for name, part in self._parts().items()}
            state |= {"history": self.history, "seconds": self.seconds, "identity": self.identity}
            write_atomically(self.state_file, lambda file: torch.save(state, file))

    def _resume(self) -> None:
        if self.state_file is None or not self.state_file.exists():
            return
        parts = self._parts()
        fresh = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
        try:
            state = torch.load(self.state_file, map_location="cpu", weights_only=True)
            if state["identity"] != self.identity:
                raise ValueError("it belongs to another experiment")
            for name, part in parts.items():
                part.load_state_dict(state[name])
            self.history, self.seconds = state["history"], state["seconds"]
        except Exception as error:  # whatever is wrong with it, training can start anew
            if unread(error):
                raise TrainingError(
                    f"{self.state_file} cannot be read now ({error}): fix that first, or delete it "
                    f"to train anew."
                ) from error
            for name, part in parts.items():
                part.load_state_dict(fresh[name])
            reason = str(error).partition("\n")[0]
            processes.say(f"{self.state_file} is not used ({reason}): starting anew.")
            return
        processes.say(f"Resumed the {self.role} after epoch {len(self.history)}.")
