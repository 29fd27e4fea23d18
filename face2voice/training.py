"""Training any of the networks, by Lightning: on one device or many, and resumable at any step."""

import contextlib
import dataclasses
import io
import json
import logging
import math
import signal
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from savedmodels import InputError, write_atomically, write_checkpoint

from .interrupts import interrupts_later
from .muon import Muon

try:
    from lightning.pytorch import LightningModule, Trainer
    from torch.utils.tensorboard import SummaryWriter
except ModuleNotFoundError as error:
    raise InputError(f"training needs the package {error.name}; pip install 'face2voice[train]'") from error

log = logging.getLogger(__name__)

STATE_FILE = "state.pt"
PREVIOUS_STATE_FILE = "state.previous.pt"
_NEXT_STATE_FILE = "state.next.pt"  # there only if a run was killed between two renamings
MODEL_FILE = "model.safetensors"
BEST_FILE = "best.safetensors"
LOG_FILE = "log.jsonl"
BOARD_FOLDER = "tensorboard"

_LOG_STEPS = 50
_EVALUATION_SEED = 0

Advance = Callable[[float, Tensor], None]


class Task(Protocol):
    """A network with its data and loss.

    A task may have more, which `fit` uses where it is there:

    - ``helpers: nn.Module``, trained along but no part of the network's file;
    - ``collate(items) -> tensors``, which makes of a batch's items what `loss` gets. It runs in the
      loader, beside the training, and its result is moved to the module's device. It must draw
      nothing at random; what is drawn belongs into the items;
    - ``evaluate() -> dict[str, float]``, figures on data held out. The first is watched, lower is
      better. Called in evaluation mode, without gradients, by all processes alike;
    - ``show() -> dict[str, np.ndarray]``, examples of what the network does: (rows, columns) is
      plotted, the first row at the bottom; (rows, columns, 3) in [0, 1] is a picture; (samples,) in
      [-1, 1] at 16 kHz is sound.
    """

    module: nn.Module

    def batches(self, epoch: int, seed: int) -> Iterator[Sequence[Any]]:
        """One pass over the data in an order that depends on epoch and seed alone.

        A batch is a sequence of items, a list or an array: of W processes, the one of rank k takes
        the items k, k + W, k + 2 W, ...
        """

    def loss(self, batch: Any, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss to minimise and its parts to log; progress runs from 0 to 1 over the training.

        Of many processes, each computes the loss of its own equal share of a batch, and the mean
        over the processes is what is minimised.
        """


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long and how fast to learn.

    Attributes:
        seconds, steps: of the whole training, summed over resumed runs; whichever ends first.
        learning_rate: reached after `warmup` steps, then falls along a cosine to `final` of it.
        warmup: a tenth of `steps`, at most 100, if None.
        clip: largest gradient norm.
        save_seconds: between checkpoints, each of which is evaluated.
        patience: how many evaluations without a better figure end the training; 0 never does.
        optimizer: "adam", or "muon" (see `Muon`).
    """

    seconds: float = math.inf
    learning_rate: float = 1e-3
    warmup: int | None = None
    final: float = 0.02
    clip: float = 1.0
    save_seconds: float = 120.0
    steps: float = math.inf
    patience: int = 0
    optimizer: Literal["adam", "muon"] = "adam"

    def __post_init__(self) -> None:
        if math.isinf(self.seconds) and math.isinf(self.steps):
            raise InputError("a training without end: say how many steps or how much time it has")

    def progress(self, step: int, seconds: float) -> float:
        """Share of the training that is done, 0 to 1."""
        shares = (seconds / self.seconds if self.seconds else 1.0, step / self.steps if self.steps else 1.0)
        return min(1.0, max(shares))

    def rate(self, step: int, progress: float) -> float:
        cosine = self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2
        warmup = max(1.0, min(100.0, self.steps / 10)) if self.warmup is None else self.warmup
        return self.learning_rate * min(1.0, (step + 1) / warmup) * cosine


@dataclasses.dataclass(frozen=True)
class Hardware:
    """What to train on.

    Attributes:
        accelerator: "cpu", "cuda" or "auto", which takes CUDA where there is one.
        devices: on each node; more than one train side by side (distributed data parallel).
        nodes: machines; on each the same command is started, with the addresses in the environment
            that Lightning documents (MASTER_ADDR, NODE_RANK, ...) or by SLURM or torchrun.
        precision: "32-true"; with CUDA also "bf16-mixed" or "16-mixed".
        workers: processes that load data ahead; None for 2 with CUDA and none without.
    """

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    precision: str = "32-true"
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.accelerator not in ("auto", "cpu", "cuda"):
            raise InputError(f"no accelerator {self.accelerator!r}: choose auto, cpu or cuda")
        if self.precision not in ("32-true", "bf16-mixed", "16-mixed"):
            raise InputError(f"no precision {self.precision!r}: choose 32-true, bf16-mixed or 16-mixed")
        if self.devices < 1 or self.nodes < 1:
            raise InputError(f"{self.devices} devices on {self.nodes} nodes: give at least one of each")
        if self.precision != "32-true" and not self.cuda:
            raise InputError(f"{self.precision}: needs CUDA (recurrences in it are not computed on a CPU); use 32-true")
        if self.cuda and torch.cuda.device_count() < self.devices:
            found = torch.cuda.device_count()
            raise InputError(f"{self.devices} CUDA devices asked for, {found} found; give fewer, or train on the cpu")

    @property
    def cuda(self) -> bool:
        return self.accelerator == "cuda" or (self.accelerator == "auto" and torch.cuda.is_available())


def fit(
    task: Task,
    run: Path,
    schedule: Schedule,
    seed: int = 0,
    hardware: Hardware | None = None,
    advance: Advance | None = None,
) -> Path:
    """Trains `task.module` until its steps or its time are used up; continues where an earlier call ended.

    Random numbers of a step depend on seed, step and process alone, so a resumed run equals an
    unbroken one.

    Args:
        run: folder for the checkpoints (last and best), the state to resume from, a log of the
            loss's parts and figures (JSON lines), and TensorBoard's files.
        advance: called after each step with the share that is done, 0 to 1, and the step's loss, a
            scalar still on its device: to read it is to wait for that.

    Returns:
        the finished checkpoint, ``run/model.safetensors``.

    Raises:
        InputError: the loss is no number any more, no batch comes, or the folder cannot be written to.
    """
    hardware = hardware or Hardware()
    with _quiet_lightning():
        learner = _Learner(task, Path(run), schedule, seed, hardware, advance)
        if learner.progress() >= 1 and (learner.run / MODEL_FILE).is_file():
            log.info("%s: finished before, at step %d; more steps or time go on from there", run, learner.step)
            return learner.run / MODEL_FILE
        many = hardware.devices * hardware.nodes > 1
        trainer = Trainer(
            accelerator="cuda" if hardware.cuda else "cpu",
            devices=hardware.devices,
            num_nodes=hardware.nodes,
            strategy="ddp" if many else "auto",
            precision=hardware.precision,
            max_epochs=1,
            gradient_clip_val=schedule.clip,
            sync_batchnorm=many and hardware.cuda,
            use_distributed_sampler=False,
            default_root_dir=run,
            **{"logger": False, "enable_checkpointing": False},
            **{"enable_progress_bar": False, "enable_model_summary": False},
        )
        if not trainer.is_global_zero:
            logging.getLogger(__package__).setLevel(logging.WARNING)  # one of the processes tells
        on_interrupt = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(learner)
        except InputError as error:  # a loader's process wraps it in its traceback
            raise InputError(str(error).rpartition("InputError: ")[2]) from error
        except SystemExit as stopped:  # Lightning's answer to an interrupt
            raise KeyboardInterrupt from stopped
        except OSError as error:
            raise InputError(
                f"{run}: cannot be written to ({error.strerror or error}); make room, then run it again: "
                "it goes on from its last state"
            ) from error
        finally:
            learner.close()
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, on_interrupt)  # once interrupted, Lightning leaves it ignored
    if learner.ended:
        raise SystemExit(143)
    return learner.run / MODEL_FILE


class _Stream(IterableDataset):
    """One process's share of every batch, epoch after epoch, from a place on.

    Every process goes through the same batches. Shares are equal: items left over by the division,
    fewer than there are processes, are left out.
    """

    def __init__(self, task: Task, seed: int, epoch: int, taken: int, rank: int, processes: int):
        self.task, self.seed = task, seed
        self.epoch, self.taken = epoch, taken
        self.rank, self.processes = rank, processes

    def __iter__(self) -> Iterator[tuple[int, int, Any]]:
        """Epoch, how many of its batches are taken with this one, and the batch."""
        worker = get_worker_info()
        mine, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        collate = getattr(self.task, "collate", None)
        for epoch, taken, items in islice(self._shares(), mine, None, workers):  # the loader asks them in turn
            yield epoch, taken, collate(items) if collate else items

    def _shares(self) -> Iterator[tuple[int, int, Sequence[Any]]]:
        for epoch in count(self.epoch):
            batches = 0
            for taken, batch in enumerate(self.task.batches(epoch, self.seed), start=1):
                items = batch[self.rank : len(batch) // self.processes * self.processes : self.processes]
                if not len(items):
                    continue
                batches += 1
                if epoch > self.epoch or taken > self.taken:
                    yield epoch, taken, items
            if not batches:
                raise InputError(f"no batch of {self.processes} or more items to learn from; give more data")


class _Learner(LightningModule):
    """A task as Lightning wants it, with the state that resuming needs."""

    def __init__(
        self,
        task: Task,
        run: Path,
        schedule: Schedule,
        seed: int,
        hardware: Hardware,
        advance: Advance | None,
    ):
        super().__init__()
        self.network = task.module
        self.helpers = getattr(task, "helpers", nn.Module())
        self.task, self.run, self.schedule, self.seed = task, run, schedule, seed
        self.hardware, self.advance = hardware, advance
        self.step, self.epoch, self.taken = 0, 0, 0
        self.before = 0.0  # seconds spent by earlier calls
        self.started: float | None = None
        self.saved_step: int | None = None
        self.told_to_end = self.ended = False  # one process, and all of them
        self.board: SummaryWriter | None = None
        self.best, self.worse = math.inf, 0
        self.sums: dict[str, Tensor] = {}
        self.summed = 0
        self.resumed = _read_state(run)
        if self.resumed:
            self._resume(self.resumed)

    # ---- what Lightning asks for

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.schedule.optimizer == "muon":
            optimizer: torch.optim.Optimizer = Muon(self, self.schedule.learning_rate)
        else:
            learned = [p for p in self.parameters() if p.requires_grad]
            optimizer = torch.optim.Adam(learned, lr=self.schedule.learning_rate)
        if self.resumed:
            try:
                optimizer.load_state_dict(self.resumed["optimizer"])
            except ValueError as error:
                raise InputError(f"{self.run}: its state is of another optimizer; give another folder") from error
            self.trainer.precision_plugin.load_state_dict(self.resumed["scaler"])
        self.resumed = None
        return optimizer

    def train_dataloader(self) -> DataLoader:
        place = (self.epoch, self.taken, self.trainer.global_rank, self.trainer.world_size)
        workers = self.hardware.workers
        if workers is None:
            workers = 2 if self.hardware.cuda else 0
        return DataLoader(
            _Stream(self.task, self.seed, *place),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=workers,
            pin_memory=self.hardware.cuda,
            multiprocessing_context="fork" if workers else None,  # the task's data is not copied
        )

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        epoch, taken, content = batch
        if hasattr(self.task, "collate"):
            content = super().transfer_batch_to_device(content, device, dataloader_idx)
        return epoch, taken, content

    def on_train_start(self) -> None:
        self.train()
        self.started = self.saved = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            # Lightning's own handler speaks to the other processes at once, in the midst of what they say to each
            # other, and then all wait for ever. It is Lightning, too, that takes this one away again.
            signal.signal(signal.SIGTERM, self._end_soon)
        if self.trainer.is_global_zero:
            self.run.mkdir(parents=True, exist_ok=True)
            _forget_after(self.run / LOG_FILE, self.step)
            self.board = SummaryWriter(str(self.run / BOARD_FOLDER), purge_step=self.step)
        if self.step:
            log.info("%s: the run in there goes on at step %d, %.0f s spent", self.run, self.step, self.spent)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Ends the training (-1), or readies learning rate and random numbers for the step."""
        due = time.monotonic() - self.saved >= self.schedule.save_seconds
        # The clocks of the processes differ, and one alone may be told to end, but what follows must not.
        self.share, self.due, self.ended = self._agree(self.progress(), due, self.told_to_end)
        if self.share >= 1 or self.ended:
            return -1
        self._seed(self.step, self.trainer.global_rank)
        for group in self.optimizers().param_groups:
            group["lr"] = self.schedule.rate(self.step, self.share)
        return None

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        _, _, content = batch
        loss, parts = self.task.loss(content, self.share)
        for name, value in {"loss": loss, **parts}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach().float()
        self.summed += 1
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.epoch, self.taken, _ = batch
        self.step += 1
        if self.step % _LOG_STEPS == 0:
            self._log(self._means())
        if self.due:
            self.save()
        if self.advance and self.trainer.is_global_zero:
            self.advance(self.progress(), outputs["loss"])

    def on_train_end(self) -> None:
        if self.summed:
            self._log(self._means())
        if self.saved_step != self.step:
            self.save()

    def close(self) -> None:
        """Lets go of TensorBoard's file."""
        if self.board:
            with contextlib.suppress(OSError):  # of a full disk it has been told already
                self.board.close()

    # ---- progress

    @property
    def spent(self) -> float:
        """Seconds of this training, with those of earlier calls."""
        return self.before + (0.0 if self.started is None else time.monotonic() - self.started)

    def progress(self) -> float:
        """Share that is done, 0 to 1."""
        out_of_patience = 0 < self.schedule.patience <= self.worse
        return 1.0 if out_of_patience else self.schedule.progress(self.step, self.spent)

    def _end_soon(self, *signalled: object) -> None:
        self.told_to_end = True

    def _agree(self, *values: float) -> list[float]:
        """The largest of the processes' values."""
        if self.trainer.world_size == 1:
            return list(values)
        told = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
        return told.tolist()

    def _seed(self, *numbers: int) -> None:
        torch.manual_seed(int(np.random.SeedSequence((self.seed, *numbers)).generate_state(1)[0]))

    # ---- log

    def _means(self) -> dict[str, float]:
        """Of the loss and its parts since the last call, over all processes."""
        sums = torch.stack([torch.as_tensor(value, device=self.device) for value in self.sums.values()])
        means = self.trainer.strategy.reduce(sums / self.summed, reduce_op="mean").tolist()
        named = dict(zip(self.sums, means, strict=True))
        self.sums, self.summed = {}, 0
        if not all(map(math.isfinite, means)):
            raise InputError(
                f"{self.run}: the loss is {named['loss']} by step {self.step}; lower the learning rate and start anew"
            )
        return named

    def _log(self, figures: dict[str, float]) -> None:
        if not self.board:
            return
        rounded = {name: round(value, 5) for name, value in figures.items()}
        with (self.run / LOG_FILE).open("a") as file:
            file.write(json.dumps({"step": self.step, "seconds": round(self.spent), **rounded}) + "\n")
        for name, value in figures.items():
            self.board.add_scalar(name, value, self.step)
        log.info("%s: step %d, %.0f s, %s", self.run, self.step, self.spent, rounded)

    # ---- state

    def save(self) -> None:
        """Evaluates, and writes what there is to keep. Called by all processes at the same step."""
        if not all(bool(torch.isfinite(value)) for value in self.sums.values()):
            self._means()
        better = self._evaluate()
        if self.trainer.is_global_zero:
            with interrupts_later():
                self._write(better)
        self.trainer.strategy.barrier()  # whoever goes on finds the files
        self.saved, self.saved_step = time.monotonic(), self.step

    def _write(self, better: bool) -> None:
        # The state comes last: whoever finds it finished finds the network of that step.
        write_checkpoint(self.run / MODEL_FILE, self.network)
        if better:
            write_checkpoint(self.run / BEST_FILE, self.network)
        content = io.BytesIO()
        torch.save(
            {
                "weights": self.state_dict(),
                "optimizer": self.optimizers(use_pl_optimizer=False).state_dict(),
                "scaler": self.trainer.precision_plugin.state_dict(),
                **{name: getattr(self, name) for name in _PLACE},
                "spent": self.spent,
            },
            content,
        )
        _write_state(self.run, content.getvalue())

    def _evaluate(self) -> bool:
        """Whether the network is better than ever before; without figures the last is the best."""
        self.eval()
        figures = {}
        with torch.inference_mode():
            self._seed(_EVALUATION_SEED)
            if hasattr(self.task, "evaluate"):
                figures = self.task.evaluate()
            if self.board and hasattr(self.task, "show"):
                self._show(self.task.show())
        self.train()
        if not figures:
            return True
        self._log(figures)
        watched = next(iter(figures.values()))
        better = watched < self.best
        self.best, self.worse = (watched, 0) if better else (self.best, self.worse + 1)
        return better

    def _show(self, examples: dict[str, np.ndarray]) -> None:
        for name, values in examples.items():
            if values.ndim == 1:
                self.board.add_audio(name, values[None], self.step, sample_rate=16_000)
            elif values.ndim == 3:
                self.board.add_image(name, values, self.step, dataformats="HWC")
            else:
                self.board.add_figure(name, _plot(values), self.step)

    def _resume(self, state: dict[str, Any]) -> None:
        try:
            self.load_state_dict(state["weights"])
        except (RuntimeError, KeyError) as error:
            raise InputError(f"{self.run}: its state is of another network; give another folder") from error
        for name in _PLACE:
            setattr(self, name, state[name])
        self.before = state["spent"]


_PLACE = ("step", "epoch", "taken", "best", "worse")  # what the state keeps of a learner, besides its weights


def _write_state(run: Path, content: bytes) -> None:
    """At every moment there is a whole state in the folder, and mostly the one before it too."""
    write_atomically(run / _NEXT_STATE_FILE, content)
    if (run / STATE_FILE).is_file():
        (run / STATE_FILE).replace(run / PREVIOUS_STATE_FILE)
    (run / _NEXT_STATE_FILE).replace(run / STATE_FILE)


def _read_state(run: Path) -> dict[str, Any] | None:
    """The latest state that is whole; None if the folder has none at all.

    Raises:
        InputError: there are states, but none that can be read.
    """
    damaged = []
    for path in (run / _NEXT_STATE_FILE, run / STATE_FILE, run / PREVIOUS_STATE_FILE):
        if not path.is_file():
            continue
        try:
            with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums
                if archive.testzip():
                    raise zipfile.BadZipFile
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (zipfile.BadZipFile, OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
            damaged.append(path)
            log.debug("%s: %s", path, error)
            continue
        for bad in damaged:
            log.warning("%s: damaged; going on from %s, step %d", bad, path, state["step"])
        return state
    if damaged:
        raise InputError(f"{damaged[0]}: damaged, and so is the one before it; remove {run} to start anew")
    return None


def _forget_after(path: Path, step: int) -> None:
    """Takes the lines of later steps, which will be done again, and cut lines out of a log."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    write_atomically(path, "".join(kept).encode())


def _plot(values: np.ndarray) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="tight")
    axes = figure.subplots()
    figure.colorbar(axes.imshow(values, origin="lower", aspect="auto", interpolation="none"))
    return figure


def _as_it_is(batch: Any) -> Any:
    return batch


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without what Lightning says of devices it does not use, of packages it would like, and of itself."""
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.filterwarnings("ignore", module=r"lightning\.")
        for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        yield
