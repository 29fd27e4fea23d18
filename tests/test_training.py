"""The training loop: budgets, checkpoints, going on after an interruption."""

import json

import pytest
import torch
from torch import nn

from face2voice import training
from face2voice.training import STATE_FILE, Schedule, fit
from savedmodels import read_checkpoint
from vocoder import WaveRNN, WaveRNNDims


class Steps(Exception):
    """The interruption."""


class SmallTask:
    """Regression with dropout, so that the random state matters; stops by exception after some steps."""

    def __init__(self, stop_after: int | None = None):
        torch.manual_seed(0)
        self.module = WaveRNN(WaveRNNDims(rnn=4, fc=4, compute=4, res_out=4, res_blocks=1, bits=2))
        self.stop_after = stop_after

    def batches(self, epoch, seed):
        generator = torch.Generator().manual_seed(1000 * seed + epoch)
        for _ in range(5):
            yield torch.rand(2, 200, generator=generator)

    def loss(self, batch, progress):
        if self.stop_after is not None:
            self.stop_after -= 1
            if self.stop_after < 0:
                raise Steps
        logits = self.module(nn.functional.dropout(batch, 0.5), torch.zeros(2, 80, 5))
        loss = logits.square().mean()
        return loss, {"square": loss.detach()}


@pytest.fixture
def clock(monkeypatch):
    """Time that passes by one second each time it is asked."""
    ticks = iter(range(10**6))
    monkeypatch.setattr(training.time, "monotonic", lambda: next(ticks))


SCHEDULE = Schedule(seconds=23, learning_rate=0.01, warmup=3, save_seconds=0)


def test_an_interrupted_training_ends_as_an_unbroken_one(tmp_path, clock):
    whole = fit(SmallTask(), tmp_path / "whole", SCHEDULE)
    with pytest.raises(Steps):
        fit(SmallTask(stop_after=7), tmp_path / "broken", SCHEDULE)
    assert (tmp_path / "broken" / STATE_FILE).is_file()
    broken = fit(SmallTask(), tmp_path / "broken", SCHEDULE)
    one, other = (read_checkpoint(path).tensors for path in (whole, broken))
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_budget_and_log(tmp_path, clock):
    schedule = Schedule(seconds=120, learning_rate=0.01)
    fit(SmallTask(), tmp_path, schedule)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [50, 100]
    assert lines[1]["square"] < lines[0]["square"]
    state = torch.load(tmp_path / STATE_FILE, weights_only=True)
    assert state["spent"] == pytest.approx(120, abs=1)
    fit(SmallTask(stop_after=0), tmp_path, schedule)  # nothing is left to do


def test_a_loss_that_is_no_number_stops(tmp_path):
    task = SmallTask()
    nn.init.constant_(task.module.fc3.bias, float("nan"))
    with pytest.raises(FloatingPointError, match="learning rate"):
        fit(task, tmp_path, SCHEDULE)
    assert not (tmp_path / STATE_FILE).exists()


def test_rate():
    schedule = Schedule(seconds=1, learning_rate=1.0, warmup=10, final=0.1)
    assert schedule.rate(0, 0.0) == pytest.approx(0.1)
    assert schedule.rate(100, 0.0) == pytest.approx(1.0)
    assert schedule.rate(100, 1.0) == pytest.approx(0.1)
