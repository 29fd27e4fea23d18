"""The loop that trains any of the networks: within a time budget, resumable at any moment."""

import dataclasses
import json
import logging
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from savedmodels import write_checkpoint

log = logging.getLogger(__name__)

STATE_FILE = "state.pt"


class Task(Protocol):
    """A network with its data and loss."""

    module: nn.Module

    def batches(self, epoch: int, seed: int) -> Iterator[Any]:
        """One pass over the data, in an order that depends on epoch and seed alone."""

    def loss(self, batch: Any, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss to minimise and its parts to log; progress runs from 0 to 1 over the training."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long and how fast to learn.

    Attributes:
        seconds: time budget of the whole training, summed over resumed runs.
        learning_rate: reached after `warmup` steps, then falls along a cosine to `final` of it.
        clip: largest gradient norm.
        save_seconds: between checkpoints.
    """

    seconds: float
    learning_rate: float = 1e-3
    warmup: int = 100
    final: float = 0.02
    clip: float = 1.0
    save_seconds: float = 120.0

    def rate(self, step: int, progress: float) -> float:
        cosine = self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2
        return self.learning_rate * min(1.0, (step + 1) / self.warmup) * cosine


def fit(task: Task, run: Path, schedule: Schedule, seed: int = 0) -> Path:
    """Trains `task.module` until the budget is used up; continues where an earlier call ended.

    Args:
        run: folder for the resume state and a log of the loss's parts (JSON lines).

    Returns:
        the finished checkpoint, ``run/model.safetensors``.
    """
    run.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.Adam(task.module.parameters(), lr=schedule.learning_rate)
    torch.manual_seed(seed)
    step, epoch, taken, spent = 0, 0, 0, 0.0
    if (run / STATE_FILE).is_file():
        state = torch.load(run / STATE_FILE, weights_only=True)
        task.module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        step, epoch, taken, spent = state["step"], state["epoch"], state["taken"], state["spent"]
        log.info("%s: continuing at step %d, %.0f of %.0f s spent", run, step, spent, schedule.seconds)
    started = saved = time.monotonic()
    before = spent
    sums: dict[str, float] = {}
    task.module.train()

    def save() -> None:
        content = {
            "module": task.module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            **{"step": step, "epoch": epoch, "taken": taken, "spent": spent},
        }
        torch.save(content, run / f"{STATE_FILE}.partial")
        os.replace(run / f"{STATE_FILE}.partial", run / STATE_FILE)
        write_checkpoint(run / "model.safetensors", task.module)

    while spent < schedule.seconds:
        for number, batch in enumerate(task.batches(epoch, seed)):
            if number < taken:
                continue
            progress = min(spent / schedule.seconds, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step, progress)
            loss, parts = task.loss(batch, progress)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"{run}: the loss is {loss.item()} at step {step}; lower the learning rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(task.module.parameters(), schedule.clip)
            optimizer.step()
            step, taken = step + 1, number + 1
            now = time.monotonic()
            spent = before + now - started
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + float(value)
            if step % 50 == 0:
                means = {name: round(total / 50, 4) for name, total in sums.items()}
                sums = {}
                with (run / "log.jsonl").open("a") as file:
                    file.write(json.dumps({"step": step, "seconds": round(spent), **means}) + "\n")
                log.info("%s: step %d, %.0f s, %s", run, step, spent, means)
            if now - saved > schedule.save_seconds:
                save()
                saved = now
            if spent >= schedule.seconds:
                break
        else:
            epoch, taken = epoch + 1, 0
    save()
    return run / "model.safetensors"
