"""Training: budgets, checkpoints, going on after an interruption or a kill, several processes."""

import dataclasses
import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from encoder import SpeechSpeakerEncoder, SpeechSpeakerEncoderDims
from encoder.ge2e import GE2ETask
from face2voice import training
from face2voice.muon import Muon, orthogonal
from face2voice.training import (
    BEST_FILE,
    LOG_FILE,
    MODEL_FILE,
    PREVIOUS_STATE_FILE,
    STATE_FILE,
    Hardware,
    Schedule,
    fit,
)
from savedmodels import InputError, read_checkpoint
from synthesizer import Tacotron, TacotronDims
from synthesizer import model as synthesizer_model
from synthesizer.train import Example, TacotronTask

CPU = Hardware("cpu")


class Interruption(Exception):
    pass


class SmallTask:
    """Regression with dropout, so that the random state matters; stops by exception after some steps."""

    def __init__(self, stop_after: int | None = None):
        torch.manual_seed(0)
        self.module = SpeechSpeakerEncoder(SpeechSpeakerEncoderDims(mels=4, hidden=4, layers=1, embedding=3))
        self.stop_after = stop_after

    def batches(self, epoch, seed):
        generator = torch.Generator().manual_seed(1000 * seed + epoch)
        for _ in range(5):
            yield torch.rand(2, 5, 4, generator=generator)

    def loss(self, batch, progress):
        if self.stop_after is not None:
            self.stop_after -= 1
            if self.stop_after < 0:
                raise Interruption
        loss = self.module.raw(nn.functional.dropout(batch, 0.5)).square().mean()
        return loss, {"square": loss.detach()}


class WatchedTask(SmallTask):
    """Told figures that fall, then rise."""

    def __init__(self, figures):
        super().__init__()
        self.figures = list(figures)

    def evaluate(self):
        assert not self.module.training
        return {"figure": self.figures.pop(0), "other": 0.0}

    def show(self):
        return {"plot": np.eye(3), "sound": np.zeros(100), "picture": np.zeros((4, 4, 3))}


EVERY_STEP = Schedule(steps=13, learning_rate=0.01, warmup=3, save_seconds=0)


def same(one, other, atol=1e-6):
    one, other = (read_checkpoint(path).tensors for path in (one, other))
    return all(torch.allclose(one[name], other[name], atol=atol) for name in one)


def log_of(run):
    return [json.loads(line) for line in (run / LOG_FILE).read_text().splitlines()]


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_an_interrupted_training_ends_as_an_unbroken_one(tmp_path, capfd, optimizer):
    schedule = dataclasses.replace(EVERY_STEP, optimizer=optimizer)
    whole = fit(SmallTask(), tmp_path / "whole", schedule, hardware=CPU)
    with pytest.raises(Interruption):
        fit(SmallTask(stop_after=7), tmp_path / "broken", schedule, hardware=CPU)
    assert torch.load(tmp_path / "broken" / STATE_FILE, weights_only=True)["step"] == 7  # in the second epoch
    broken = fit(SmallTask(), tmp_path / "broken", schedule, hardware=CPU)
    assert same(whole, broken)
    assert capfd.readouterr() == ("", "")


def test_budget_and_log(tmp_path):
    schedule = Schedule(steps=120, learning_rate=0.01)
    shares = []
    fit(SmallTask(), tmp_path, schedule, hardware=CPU, advance=lambda share, loss: shares.append(share))
    assert shares == sorted(shares) and shares[-1] == 1
    lines = log_of(tmp_path)
    assert [line["step"] for line in lines] == [50, 100, 120]
    assert lines[-1]["square"] == lines[-1]["loss"] < lines[0]["loss"]
    assert list((tmp_path / training.BOARD_FOLDER).iterdir())
    fit(SmallTask(stop_after=0), tmp_path, schedule, hardware=CPU)  # nothing is left to do
    (tmp_path / LOG_FILE).open("a").write('{"step": 150, "loss": 1}\n{"step": 16')  # lines that a kill left behind
    fit(SmallTask(), tmp_path, Schedule(steps=130), hardware=CPU)
    assert [line["step"] for line in log_of(tmp_path)] == [50, 100, 120, 130]


def test_time_ends_a_training(tmp_path):
    started = time.monotonic()
    fit(SmallTask(), tmp_path, Schedule(seconds=0.3), hardware=CPU)
    assert time.monotonic() - started > 0.3
    state = torch.load(tmp_path / STATE_FILE, weights_only=True)
    assert state["spent"] >= 0.3
    assert state["step"] > 0
    assert (tmp_path / MODEL_FILE).is_file()


def test_best_and_last_are_kept_and_patience_ends(tmp_path):
    schedule = Schedule(steps=20, save_seconds=0, patience=3, learning_rate=0.1, warmup=1)
    fit(WatchedTask([0.5, 0.3, 0.4, 0.6, 0.35, 0.2, 0.2]), tmp_path, schedule, hardware=CPU)
    figures = [line for line in log_of(tmp_path) if "figure" in line]
    assert [(line["step"], line["figure"]) for line in figures][:5] == [
        (1, 0.5),
        (2, 0.3),
        (3, 0.4),
        (4, 0.6),
        (5, 0.35),
    ]
    state = torch.load(tmp_path / STATE_FILE, weights_only=True)
    assert state["step"] == 5
    assert not same(tmp_path / BEST_FILE, tmp_path / MODEL_FILE)


def test_a_loss_that_is_no_number_stops(tmp_path):
    task = SmallTask()
    nn.init.constant_(task.module.linear.bias, float("nan"))
    with pytest.raises(InputError, match="learning rate"):
        fit(task, tmp_path, EVERY_STEP, hardware=CPU)
    assert not (tmp_path / STATE_FILE).exists()


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_state_falls_back_to_the_one_before(tmp_path, caplog, damage):
    whole = fit(SmallTask(), tmp_path / "whole", EVERY_STEP, hardware=CPU)
    run = tmp_path / "run"
    with pytest.raises(Interruption):
        fit(SmallTask(stop_after=7), run, EVERY_STEP, hardware=CPU)
    content = bytearray((run / STATE_FILE).read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        third = len(content) // 3
        content[third : 2 * third] = bytes(third)
    (run / STATE_FILE).write_bytes(content)
    assert same(fit(SmallTask(), run, EVERY_STEP, hardware=CPU), whole)
    assert f"{run / STATE_FILE}: damaged; going on from {run / PREVIOUS_STATE_FILE}, step 6" in caplog.text
    for name in (STATE_FILE, PREVIOUS_STATE_FILE):
        (run / name).write_bytes(b"PK")
    with pytest.raises(InputError, match="start anew"):
        fit(SmallTask(), run, EVERY_STEP, hardware=CPU)


def test_states_of_another_network_are_refused(tmp_path):
    fit(SmallTask(), tmp_path, EVERY_STEP, hardware=CPU)
    other = SmallTask()
    other.module = SpeechSpeakerEncoder(SpeechSpeakerEncoderDims(mels=4, hidden=5, layers=1, embedding=3))
    with pytest.raises(InputError, match="another network"):
        fit(other, tmp_path, EVERY_STEP, hardware=CPU)
    with pytest.raises(InputError, match="another optimizer"):
        fit(SmallTask(), tmp_path, dataclasses.replace(EVERY_STEP, steps=99, optimizer="muon"), hardware=CPU)


def test_orthogonal_evens_out_singular_values():
    generator = torch.Generator().manual_seed(0)
    for shape in ((6, 40), (40, 6)):
        scaled = torch.randn(*shape, generator=generator) * torch.logspace(0, -1, shape[1])
        values = torch.linalg.svdvals(orthogonal(scaled))
        assert 0.6 < values.min() <= values.max() < 1.3


class Layers(nn.ModuleDict):
    @property
    def output_layers(self):
        return (self["last"],)


def test_muon_goes_adams_way_where_there_is_no_matrix():
    """Nor where it is a table of embeddings or an output layer; other matrices move by the length asked for, whatever
    their gradient's."""
    steps = {}
    for optimizer in (torch.optim.Adam, Muon):
        torch.manual_seed(0)
        module = Layers({"table": nn.Embedding(5, 3), "linear": nn.Linear(3, 4), "last": nn.Linear(4, 2)})
        before = {name: p.detach().clone() for name, p in module.named_parameters()}
        learner = optimizer(module, 0.01) if optimizer is Muon else optimizer(module.parameters(), 0.01)
        for _ in range(3):
            learner.zero_grad()
            made = module["last"](module["linear"](module["table"](torch.tensor([0, 2]))))
            made.exp().sum().mul(1000).backward()
            learner.step()
        steps[optimizer] = {name: p.detach() - before[name] for name, p in module.named_parameters()}
    for name in ("table.weight", "linear.bias", "last.weight", "last.bias"):
        # not the same: the matrix, which moves otherwise, has changed their gradients
        torch.testing.assert_close(steps[Muon][name], steps[torch.optim.Adam][name], atol=5e-3, rtol=0.2)
    length = float(steps[Muon]["linear.weight"].square().mean().sqrt())
    assert 0.1 * 0.03 < length < 0.3 * 0.03


def _take_steps_of_muon(rank, processes, folder):
    torch.set_num_threads(1)
    if processes > 1:
        torch.distributed.init_process_group("gloo", f"file://{folder}/met", rank=rank, world_size=processes)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 4), nn.Linear(4, 4))
    learner = Muon(module, 0.01)
    for _ in range(3):
        learner.zero_grad()
        module(torch.ones(2, 3)).exp().sum().backward()
        learner.step()
    torch.save(module.state_dict(), folder / f"{processes}-{rank}.pt")


def test_muon_s_work_is_shared_out_among_processes(tmp_path):
    ranks = [
        _forked(_take_steps_of_muon, rank, processes, tmp_path) for processes in (1, 2) for rank in range(processes)
    ]
    for process in ranks:
        process.join(60)
    alone, *together = (torch.load(tmp_path / name) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    for weights in together:
        for name, value in weights.items():
            torch.testing.assert_close(value, alone[name])


def _forked(target, *arguments):
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    return process


def _train(run):
    torch.set_num_threads(1)
    fit(SmallTask(), run, EVERY_STEP, hardware=CPU)


def test_killed_at_any_moment_a_training_goes_on(tmp_path):
    whole = fit(SmallTask(), tmp_path / "whole", EVERY_STEP, hardware=CPU)
    rng = random.Random(0)
    run = tmp_path / "killed"
    for _ in range(20):
        process = _forked(_train, run)
        process.join(rng.uniform(0.05, 0.6))
        if process.exitcode is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert same(fit(SmallTask(), run, EVERY_STEP, hardware=CPU), whole)


def interrupted_after(seconds, action):
    """Does it with a Ctrl-C after so much of the processor's time; returns whether it was cut short."""
    before = signal.signal(signal.SIGPROF, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        action()
        signal.setitimer(signal.ITIMER_PROF, 0)  # here, so that nothing is interrupted any more once it is caught
        return False
    except KeyboardInterrupt:
        return True
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)  # whatever else ended it
        signal.signal(signal.SIGPROF, before)


def test_interrupted_at_any_moment_a_training_goes_on(tmp_path, capfd):
    fit(SmallTask(), tmp_path / "first", EVERY_STEP, hardware=CPU)  # what comes first takes longest
    begun = time.process_time()
    whole = fit(SmallTask(), tmp_path / "whole", EVERY_STEP, hardware=CPU)
    needed = time.process_time() - begun
    rng, run = random.Random(0), tmp_path / "run"
    cut = [
        interrupted_after(rng.uniform(0.05, 0.9) * needed, lambda: fit(SmallTask(), run, EVERY_STEP, hardware=CPU))
        for _ in range(10)
    ]
    assert any(cut)
    assert same(fit(SmallTask(), run, EVERY_STEP, hardware=CPU), whole)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("written", [24, 25])  # of the 26 networks: the last and the best of 13 steps
def test_cut_short_in_its_last_save_a_training_goes_on(tmp_path, monkeypatch, written):
    whole, run = fit(SmallTask(), tmp_path / "whole", EVERY_STEP, hardware=CPU), tmp_path / "run"
    room, write = iter(range(written)), training.write_checkpoint

    def interrupted(*arguments):
        if next(room, None) is None:
            raise Interruption
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "write_checkpoint", interrupted)
        with pytest.raises(Interruption):
            fit(SmallTask(), run, EVERY_STEP, hardware=CPU)
    assert same(fit(SmallTask(), run, EVERY_STEP, hardware=CPU), whole)


@pytest.mark.parametrize("fails", ["state", "log"])
def test_a_full_disk_is_told_and_no_step_saved_is_lost(tmp_path, monkeypatch, fails):
    whole, run = fit(SmallTask(), tmp_path / "whole", EVERY_STEP, hardware=CPU), tmp_path / "run"
    room = iter(range(6))

    def write(*arguments, wrapped):
        if next(room, None) is None:
            raise OSError(28, "No space left on device")
        return wrapped(*arguments)

    with monkeypatch.context() as patch:
        if fails == "state":
            patch.setattr(training, "write_atomically", partial(write, wrapped=training.write_atomically))
        else:
            add = training.SummaryWriter.add_scalar
            patch.setattr(training.SummaryWriter, "add_scalar", lambda *a, **_: write(*a, wrapped=add))
            patch.setattr(training, "_LOG_STEPS", 1)
        with pytest.raises(InputError, match=r"run: cannot be written to \(No space left on device\); make room"):
            fit(SmallTask(), run, EVERY_STEP, hardware=CPU)
    assert torch.load(run / STATE_FILE, weights_only=True)["step"] > 1
    assert not list(run.glob(".*"))
    assert same(fit(SmallTask(), run, EVERY_STEP, hardware=CPU), whole)


def test_a_training_that_is_told_to_end_saves_first(tmp_path):
    process = _forked(_train_long, tmp_path)
    while not (tmp_path / "begun").exists():
        time.sleep(0.02)
    process.terminate()
    process.join(30)
    assert process.exitcode == 143
    assert torch.load(tmp_path / STATE_FILE, weights_only=True)["step"] > 0


def _train_long(run):
    torch.set_num_threads(1)
    fit(SmallTask(), run, Schedule(seconds=60), hardware=CPU, advance=lambda share, loss: (run / "begun").touch())


def test_told_to_end_between_two_steps_it_saves_too(tmp_path):
    process = _forked(_train_and_end, tmp_path)
    process.join(60)
    assert process.exitcode == 143
    assert torch.load(tmp_path / STATE_FILE, weights_only=True)["step"] == 1


def _train_and_end(run):
    torch.set_num_threads(1)
    schedule = Schedule(seconds=60)
    fit(SmallTask(), run, schedule, hardware=CPU, advance=lambda share, loss: signal.raise_signal(signal.SIGTERM))


# ---- several processes


def ge2e_task():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    speakers = [f"{i}" for i in range(8) for _ in range(2)]
    mels = [rng.random((170, 40), dtype=np.float32) * (1 + int(speaker)) for speaker in speakers]
    dims = SpeechSpeakerEncoderDims(hidden=8, layers=1, embedding=8, log_mels=True)
    return GE2ETask(SpeechSpeakerEncoder(dims), mels, speakers, speakers_per_batch=8, utterances_per_speaker=2)


def tacotron_task():
    """Normalised by what the whole batch's frames would be, so the mean over batches of any size is a sum.

    Batch normalisation is set aside: each process knows its own share's mean only, unless there is
    CUDA, where `fit` asks Lightning for statistics over all processes.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    dims = TacotronDims(
        **{"embedding": 8, "encoder": 8, "encoder_kernels": 2, "decoder": 8, "lstm": 8, "postnet": 8},
        **{"postnet_kernels": 2, "highways": 1, "speaker": 4, "max_r": 2, "r": 2},
    )
    examples = [
        Example([5] * (3 + n % 4) + [1], rng.normal(size=(80, n)), np.full(4, 0.5, np.float32))
        for n in (9, 30, 13, 22, 8, 17)
    ]
    module = Tacotron(dims)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.eval()
            part.train = lambda mode=True: None
    return TacotronTask(module, examples, batch_size=6, schedule=((0.0, 2),))


def one_step(task, run, devices):
    assert fit(task, run, Schedule(steps=1, warmup=1), hardware=Hardware("cpu", devices)).is_file()


def two_processes(job, *arguments):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [_forked(_one_of_two, port, rank, job, *arguments) for rank in range(2)]


def _one_of_two(port, rank, job, *arguments):
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    job(*arguments)


@pytest.mark.parametrize("make_task", [ge2e_task, tacotron_task])
def test_two_processes_learn_as_one_with_the_whole_batch(tmp_path, monkeypatch, make_task):
    undropped = synthesizer_model.Dropout(p=0.0)  # each process would draw its own masks
    monkeypatch.setattr(synthesizer_model, "Dropout", lambda *_, **__: undropped)
    one_step(make_task(), tmp_path / "one", devices=1)
    for process in two_processes(one_step, make_task(), tmp_path / "two", 2):
        process.join(120)
        assert process.exitcode == 0
    (one,), (two,) = log_of(tmp_path / "one"), log_of(tmp_path / "two")
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-4)
    states = [torch.load(tmp_path / run / STATE_FILE, weights_only=True)["optimizer"] for run in ("one", "two")]
    gradients = [[moments["exp_avg"] for moments in state["state"].values()] for state in states]  # a tenth of them
    assert len(gradients[0]) == len(gradients[1]) > 5
    for whole, shared in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, shared, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("told", [(0,), (1,), (0, 1)])
def test_one_of_two_processes_told_to_end_both_do_and_save_first(tmp_path, told):
    processes = two_processes(_train_both, tmp_path)
    while not (tmp_path / "begun").exists():
        time.sleep(0.02)
    for rank in told:
        processes[rank].terminate()
    for process in processes:
        process.join(60)
        assert process.exitcode == 143
    assert torch.load(tmp_path / STATE_FILE, weights_only=True)["step"] > 0


def _train_both(run):
    begun = run / "begun"
    fit(ge2e_task(), run, Schedule(seconds=60), hardware=Hardware("cpu", 2), advance=lambda share, loss: begun.touch())


def test_inference_does_not_load_the_training_libraries():
    code = "import sys; from face2voice import Face2Voice; assert not {'lightning', 'tensorboard'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_schedule():
    schedule = Schedule(seconds=100, learning_rate=1.0, warmup=10, final=0.1, steps=50)
    assert schedule.rate(0, 0.0) == pytest.approx(0.1)
    assert schedule.rate(100, 0.0) == pytest.approx(1.0)
    assert schedule.rate(100, 1.0) == pytest.approx(0.1)
    assert schedule.progress(10, 50.0) == 0.5
    assert schedule.progress(40, 50.0) == 0.8
    assert schedule.progress(60, 0.0) == 1.0
    with pytest.raises(InputError, match="without end"):
        Schedule()


def test_bad_hardware():
    mixed = {"accelerator": "cpu", "precision": "bf16-mixed"}
    for wrong in (
        mixed,
        {"accelerator": "tpu"},
        {"precision": "8"},
        {"devices": 0},
        {"accelerator": "cuda", "devices": 99},
    ):
        with pytest.raises(InputError):
            Hardware(**wrong)


def test_loading_ahead_changes_nothing(tmp_path):
    alone = fit(SmallTask(), tmp_path / "alone", EVERY_STEP, hardware=CPU)
    ahead = fit(SmallTask(), tmp_path / "ahead", EVERY_STEP, hardware=Hardware("cpu", workers=2))
    assert same(alone, ahead, atol=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_no_data_is_told(tmp_path, workers):
    task = SmallTask()
    task.batches = lambda epoch, seed: iter(())
    with pytest.raises(InputError, match="^no batch of .* give more data$"):
        fit(task, tmp_path, EVERY_STEP, hardware=Hardware("cpu", workers=workers))
