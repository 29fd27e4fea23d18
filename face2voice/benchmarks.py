"""How fast training is, against loops that go through time step by step."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from savedmodels import InputError
from synthesizer import Tacotron, TacotronDims
from synthesizer.model import Dropout, Encoded
from synthesizer.train import Example, TacotronTask
from vocoder import WaveRNN, WaveRNNDims
from vocoder.train import Recording, WaveRNNTask

_ROUNDS = 3  # the variants take turns, so that a machine that slows down slows all of them


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Attributes:
    ratio: of its steps per second to the plain variant's.
    """

    stage: str
    variant: str
    steps_per_second: float
    ratio: float


class PlainTacotron(Tacotron):
    """The same numbers, with all of the decoder inside the loop over its steps, as it was published."""

    def decode(self, encoded: Encoded, mel: Tensor, voices: Tensor, dropout: Dropout) -> tuple[Tensor, Tensor, Tensor]:
        r, state = self.dims.r, None
        frame = torch.zeros_like(mel[:, :, 0])
        mels, stops, alignments = [], [], []
        for start in range(0, mel.shape[2], r):
            made, stop, alignment, state = self.decoder.step(frame, voices, state, encoded, dropout, r)
            mels.append(made)
            stops.append(stop)
            alignments.append(alignment)
            frame = mel[:, :, start + r - 1]
        return torch.cat(mels, dim=2), torch.stack(stops, dim=1), torch.stack(alignments, dim=1)


class _Stepped(nn.GRU):
    """A GRU that calls its cell once a step."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = x.new_zeros(x.shape[0], self.hidden_size)
        weights = (self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0)
        states = []
        for step in x.unbind(dim=1):
            hidden = torch.gru_cell(step, hidden, *weights)
            states.append(hidden)
        return torch.stack(states, dim=1), hidden


class PlainWaveRNN(WaveRNN):
    """The same numbers, with the recurrences in a loop over samples."""

    def __init__(self, dims: WaveRNNDims):
        super().__init__(dims)
        self.rnn1 = _Stepped(dims.rnn, dims.rnn, batch_first=True)
        self.rnn2 = _Stepped(dims.rnn + dims.res_out // 4, dims.rnn, batch_first=True)


def measure_training(
    stages: Sequence[str], size: str, device: str, batch_size: int = 16, steps: int = 5
) -> list[Measurement]:
    """Steps (loss, gradient, Adam) per second on made-up data, all variants in turn.

    With CUDA also in bf16, and from memory that is not pinned. The synthesizer's loading is measured by batches
    of random lengths against those of similar lengths.

    Args:
        size: of the networks, see `stages.Options`.

    Raises:
        InputError: a stage that is not measured, or no such size.
    """
    from .stages import STAGES

    measured = []
    for stage in stages:
        if stage not in _VARIANTS:
            raise InputError(f"{stage}: not measured; choose among {', '.join(_VARIANTS)}")
        if size not in STAGES[stage].sizes:
            raise InputError(f"no size {size!r}: choose one of {', '.join(STAGES[stage].sizes)}")
        variants = _VARIANTS[stage](STAGES[stage].sizes[size], device, batch_size, steps)
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(1 + _ROUNDS):  # the first warms up
            for name, run in variants.items():
                seconds[name].append(_time(run, device) / steps)
        rates = {name: 1 / float(np.median(times[1:])) for name, times in seconds.items()}
        plain = next(iter(rates.values()))
        measured += [Measurement(stage, name, rate, rate / plain) for name, rate in rates.items()]
    return measured


def _synthesizer(dims: TacotronDims, device: str, batch_size: int, steps: int) -> dict[str, Callable[[], None]]:
    rng = np.random.default_rng(0)
    frames = rng.integers(150, 600, steps * batch_size)  # 2 to 7.5 s
    examples = [
        Example(rng.integers(2, len(dims.symbols), n // 6), rng.normal(size=(dims.mels, n)), np.eye(dims.speaker)[0])
        for n in frames
    ]
    task, plain = (TacotronTask(n(dims).to(device), examples, batch_size, ((0.0, dims.r),)) for n in _TACOTRONS)
    bucketed = [task.collate(batch) for batch in task.batches(0, seed=0)]
    mixed = [task.collate(range(i, i + batch_size)) for i in range(0, len(examples), batch_size)]
    return {
        "plain loop": _steps(plain, bucketed, device),
        "fused, random lengths": _steps(task, mixed, device),
        **_fused("fused, similar lengths", task, bucketed, device),
    }


def _vocoder(dims: WaveRNNDims, device: str, batch_size: int, steps: int) -> dict[str, Callable[[], None]]:
    rng = np.random.default_rng(0)
    mel = rng.uniform(-4, 4, (dims.mels, 401)).astype(np.float32)
    recording = Recording((rng.normal(size=400 * dims.hop) * 3000).astype(np.int16), mel)
    task, plain = (WaveRNNTask(n(dims).to(device), [recording] * steps, batch_size) for n in (WaveRNN, PlainWaveRNN))
    batches = [task.collate(batch) for batch in islice(task.batches(0, seed=0), steps)]
    return {
        "plain loop": _steps(plain, batches, device),
        **_fused("fused", task, batches, device),
    }


_TACOTRONS = (Tacotron, PlainTacotron)
_VARIANTS = {"synthesizer": _synthesizer, "vocoder": _vocoder}


def _fused(
    name: str, task: TacotronTask | WaveRNNTask, batches: list[tuple[Tensor, ...]], device: str
) -> dict[str, Callable[[], None]]:
    variants = {name: _steps(task, batches, device)}
    if device == "cuda":  # elsewhere there is nothing to copy to, and recurrences in bf16 are not computed
        variants[f"{name}, not pinned"] = _steps(task, batches, device, pinned=False)
        variants[f"{name}, bf16"] = _steps(task, batches, device, bf16=True)
    return variants


def _steps(
    task: TacotronTask | WaveRNNTask,
    batches: list[tuple[Tensor, ...]],
    device: str,
    pinned: bool = True,
    bf16: bool = False,
) -> Callable[[], None]:
    optimizer = torch.optim.Adam(task.module.parameters())
    if pinned and device == "cuda":
        batches = [tuple(x.pin_memory() for x in batch) for batch in batches]

    def run() -> None:
        for batch in batches:
            on_device = tuple(x.to(device, non_blocking=True) for x in batch)
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                loss, _ = task.loss(on_device, 0.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


def _time(run: Callable[[], None], device: str) -> float:
    started = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
