"""Tacotron: symbols and a voice in, mel spectrogram out.

The network is Tacotron (Wang et al., 2017) with location-sensitive attention (Chorowski et al.,
2015), conditioned on a speaker embedding as in SV2TTS (Jia et al., 2018), laid out so that the
published Real-Time-Voice-Cloning weights fit.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from savedmodels import Checkpoint, CheckpointError, read_checkpoint

from .attention import LocationSensitiveAttention, State, Weights, attend, attend_all
from .gru import run_both_ways
from .text.symbols import CHARACTERS, PAD, Spelling, SymbolTable

PAD_ID = 0
_NOT_WEIGHTS = {"step", "stop_threshold", "decoder.r"}
_MIN_STOP_FRAME = 10  # the stop output is not listened to before; published behaviour
_MAX_FRAMES = 2000


@dataclasses.dataclass(frozen=True)
class TacotronDims:
    """Everything that shapes a Tacotron; the defaults are those of the published weights.

    Attributes:
        symbols, spelling: the table that the input ids index (see `text.symbols`).
        r: mel frames made by one decoder step.
        max_r: frames the output layer has weights for; a smaller r uses the first r.
        quiet: trailing frames whose every band is below this level are cut.
        dropout: share of the prenets' values that are dropped in training.
        speaking_dropout: the same in speaking. Less of it is less noise in the mel, more of it keeps a shaky
            attention moving.
    """

    symbols: tuple[str, ...] = CHARACTERS.symbols
    spelling: Spelling = CHARACTERS.spelling
    embedding: int = 512
    encoder: int = 256
    encoder_kernels: int = 5
    decoder: int = 128
    lstm: int = 1024
    postnet: int = 512
    postnet_kernels: int = 5
    highways: int = 4
    mels: int = 80
    speaker: int = 256
    max_r: int = 20
    r: int = 2
    quiet: float = -3.4
    dropout: float = 0.5
    speaking_dropout: float = 0.5

    def __post_init__(self) -> None:
        if not 1 <= self.r <= self.max_r:
            raise ValueError(f"r is {self.r}, but the output layer makes 1 to {self.max_r} frames a step")
        if self.symbols[0] != PAD:
            raise ValueError("the first symbol must be padding")

    @property
    def table(self) -> SymbolTable:
        return SymbolTable(self.symbols, self.spelling)


class TacotronOutput(NamedTuple):
    """What the network says of a batch.

    Attributes:
        mel: (B, mels, frames) of the decoder, before the post-net.
        post_mel: (B, mels, frames), the result.
        alignments: (B, steps, symbols) attention weights; a step makes r frames.
        stop: (B, frames) probability that the speech has ended.
    """

    mel: Tensor
    post_mel: Tensor
    alignments: Tensor
    stop: Tensor


class Spoken(NamedTuple):
    """One generated item.

    Attributes:
        mel: (mels, frames) in the range of `synthesizer.audio`, without trailing quiet.
        alignment: (steps, symbols).
        finished: False if the decoder was cut off before it said that the speech had ended.
    """

    mel: Tensor
    alignment: Tensor
    finished: bool


# Text (B, T, encoder), its keys (B, T, decoder), what is outside of it (B, T), and how to attend to it.
Encoded = tuple[Tensor, Tensor, Tensor, Weights]
# Attention's, and hidden and cell of each of the two recurrences behind it, (B, lstm) all.
DecoderState = tuple[State, tuple[tuple[Tensor, Tensor], ...]]


class Dropout:
    """Masks of the prenet's dropout, one stream of random numbers per item.

    Each item's masks depend on its seed alone, so an item in a batch gets what it gets alone.
    Without seeds, `torch.nn.functional.dropout` and the global generator are used.
    """

    def __init__(self, seeds: Sequence[int] | None = None, p: float = 0.5):
        self.p = p
        # Drawn on the CPU: the same seed then means the same masks on every device.
        self.streams = None if seeds is None else [torch.Generator().manual_seed(s) for s in seeds]

    def __call__(self, x: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """x: (B, ..., features); with `lengths`, item i draws for its first lengths[i] rows only."""
        if self.streams is None:
            return F.dropout(x, self.p, training=True)
        mask = torch.zeros(x.shape)
        for i, stream in enumerate(self.streams):
            row = mask[i] if lengths is None else mask[i, : lengths[i]]
            row.copy_(torch.rand(row.shape, generator=stream) >= self.p)
        return x * mask.to(x.device) / (1 - self.p)


class PreNet(nn.Module):
    """Two ReLU layers whose dropout is always on: it keeps the decoder listening to the text."""

    def __init__(self, inputs: int, features: int):
        super().__init__()
        self.fc1 = nn.Linear(inputs, features)
        self.fc2 = nn.Linear(features, features)

    def forward(self, x: Tensor, dropout: Dropout, lengths: Sequence[int] | None = None) -> Tensor:
        x = dropout(F.relu(self.fc1(x)), lengths)
        return dropout(F.relu(self.fc2(x)), lengths)


class BatchNormConv(nn.Module):
    """Convolution, ReLU (optional), batch normalisation: in this order in the published weights."""

    def __init__(self, inputs: int, outputs: int, kernel: int, relu: bool = True):
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bnorm = nn.BatchNorm1d(outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.bnorm(F.relu(x) if self.relu else x)


class Highway(nn.Module):
    def __init__(self, features: int):
        super().__init__()
        self.W1 = nn.Linear(features, features)
        self.W2 = nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.W2(x))
        return gate * F.relu(self.W1(x)) + (1 - gate) * x


class CBHG(nn.Module):
    """Convolution bank, highways and a bidirectional GRU (Wang et al., 2017, section 3.1).

    Args:
        inputs: channels in; also those after the projections.
        channels: of the bank, and of the output (both directions together).
    """

    def __init__(self, kernels: int, inputs: int, channels: int, hidden: int, highways: int):
        super().__init__()
        self.conv1d_bank = nn.ModuleList(BatchNormConv(inputs, channels, k) for k in range(1, kernels + 1))
        self.conv_project1 = BatchNormConv(kernels * channels, hidden, 3)
        self.conv_project2 = BatchNormConv(hidden, inputs, 3, relu=False)
        self.pre_highway = nn.Linear(inputs, channels, bias=False) if inputs != channels else None
        self.highways = nn.ModuleList(Highway(channels) for _ in range(highways))
        self.rnn = nn.GRU(channels, channels // 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, inputs, T) -> (B, T, channels). With `lengths` (B,), what lies behind an item's end has no effect."""
        frames = x.shape[2]
        mask = torch.ones(1, 1, 1, device=x.device) if lengths is None else _mask(lengths, frames)[:, None]
        x = x * mask
        bank = torch.cat([conv(x)[:, :, :frames] for conv in self.conv1d_bank], dim=1)
        pooled = F.max_pool1d(bank, 2, stride=1, padding=1)[:, :, :frames]
        projected = self.conv_project2(self.conv_project1(pooled * mask) * mask)
        x = (projected + x).transpose(1, 2)
        if self.pre_highway is not None:
            x = self.pre_highway(x)
        for highway in self.highways:
            x = highway(x)
        return self.rnn(x)[0] if lengths is None else run_both_ways(self.rnn, x, lengths)


class Encoder(nn.Module):
    def __init__(self, dims: TacotronDims):
        super().__init__()
        self.embedding = nn.Embedding(len(dims.symbols), dims.embedding)
        self.pre_net = PreNet(dims.embedding, dims.encoder)
        self.cbhg = CBHG(dims.encoder_kernels, dims.encoder, dims.encoder, dims.encoder, dims.highways)

    def forward(self, symbols: Tensor, lengths: Tensor, dropout: Dropout) -> Tensor:
        """(B, T) ids -> (B, T, encoder)."""
        # In training nothing asks for the lengths, and to read them is to wait for the GPU.
        x = self.pre_net(self.embedding(symbols), dropout, lengths.tolist() if dropout.streams else None)
        return self.cbhg(x.transpose(1, 2), lengths)


class Decoder(nn.Module):
    def __init__(self, dims: TacotronDims):
        super().__init__()
        self.mels, self.max_r = dims.mels, dims.max_r
        context = dims.encoder + dims.speaker
        prenet = 2 * dims.decoder
        self.prenet = PreNet(dims.mels, prenet)
        self.attn_net = LocationSensitiveAttention(dims.decoder)
        self.attn_rnn = nn.GRUCell(context + prenet, dims.decoder)
        self.rnn_input = nn.Linear(context + dims.decoder, dims.lstm)
        self.res_rnn1 = nn.LSTMCell(dims.lstm, dims.lstm)
        self.res_rnn2 = nn.LSTMCell(dims.lstm, dims.lstm)
        self.mel_proj = nn.Linear(dims.lstm, dims.mels * dims.max_r, bias=False)
        self.stop_proj = nn.Linear(dims.lstm + context, 1)

    def gates(self, heard: Tensor, voices: Tensor, first: bool) -> Tensor:
        """What attention's recurrence is told besides the text: (B, steps, prenet), (B, speaker) -> (B, steps,
        3 decoder). At the very `first` step nothing has been attended to, and the voice is not told."""
        speaker = voices.shape[1]
        weight = self.attn_rnn.weight_ih[:, -speaker - heard.shape[2] :]
        voice = F.linear(voices, weight[:, :speaker])[:, None].expand(-1, heard.shape[1], -1)
        if first:
            voice = F.pad(voice[:, 1:], (0, 0, 1, 0))
        return F.linear(heard, weight[:, speaker:], self.attn_rnn.bias_ih) + voice

    def enter(self, seen: Tensor, voices: Tensor, hidden: Tensor) -> Tensor:
        """The text seen (..., encoder), voices (..., speaker) and attention's hidden state (..., decoder) to what the
        two large recurrences begin with, (..., lstm). A dimension of voices may be 1 where the others have steps."""
        sizes = [seen.shape[-1], voices.shape[-1], hidden.shape[-1]]
        of_seen, of_voice, of_hidden = self.rnn_input.weight.split(sizes, dim=1)
        voice = F.linear(voices, of_voice, self.rnn_input.bias)
        return F.linear(seen, of_seen) + F.linear(hidden, of_hidden) + voice

    def frames(self, x: Tensor, seen: Tensor, voices: Tensor, r: int) -> tuple[Tensor, Tensor]:
        """(..., lstm), and as in `enter`, to mel frames (..., mels, r) and stop logits (...,)."""
        rows = self.mel_proj.weight.unflatten(0, (self.mels, self.max_r))[:, :r].flatten(0, 1)
        mel = F.linear(x, rows).unflatten(-1, (self.mels, r))
        sizes = [x.shape[-1], seen.shape[-1], voices.shape[-1]]
        of_x, of_seen, of_voice = self.stop_proj.weight[0].split(sizes)
        return mel, x @ of_x + seen @ of_seen + voices @ of_voice + self.stop_proj.bias

    def step(
        self, frame: Tensor, voices: Tensor, state: DecoderState | None, encoded: Encoded, dropout: Dropout, r: int
    ) -> tuple[Tensor, Tensor, Tensor, DecoderState]:
        """One step: the frame before it (B, mels) and the state that the step before left, None at the very first,
        to mel frames (B, mels, r), stop logits (B,), weights of attention (B, T) and the new state."""
        text, keys, outside, weights = encoded
        gates = self.gates(self.prenet(frame, dropout)[:, None], voices, first=state is None)[:, 0]
        if state is None:
            blank = text.new_zeros(len(text), self.res_rnn1.hidden_size)
            state = State.start(self.attn_rnn.hidden_size, text), ((blank, blank), (blank, blank))
        attention, alignment, _ = attend(state[0], gates, text, keys, outside, weights)
        x = self.enter(attention.seen, voices, attention.hidden)
        cells = []
        for cell, before in zip((self.res_rnn1, self.res_rnn2), state[1], strict=True):
            cells.append(cell(x, before))
            x = x + cells[-1][0]
        return *self.frames(x, attention.seen, voices, r), alignment, (attention, tuple(cells))


class Tacotron(nn.Module):
    """Symbols and a voice to a mel spectrogram.

    >>> model = Tacotron(TacotronDims())
    >>> symbols, voices = torch.tensor([[9, 12, 1]]), torch.rand(1, 256)
    >>> model(symbols, torch.zeros(1, 80, 24), voices).post_mel.shape
    torch.Size([1, 80, 24])
    """

    def __init__(self, dims: TacotronDims):
        super().__init__()
        self.dims = dims
        self.encoder = Encoder(dims)
        self.encoder_proj = nn.Linear(dims.encoder + dims.speaker, dims.decoder, bias=False)
        self.decoder = Decoder(dims)
        self.postnet = CBHG(dims.postnet_kernels, dims.mels, dims.postnet, dims.postnet, dims.highways)
        self.post_proj = nn.Linear(dims.postnet, dims.mels, bias=False)

    @property
    def output_layers(self) -> tuple[nn.Module, ...]:
        """What makes frames and the stop, see `face2voice.muon.Muon`."""
        return self.decoder.mel_proj, self.decoder.stop_proj, self.postnet.conv_project2, self.post_proj

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> "Tacotron":
        """The published ``synthesizer.pt`` or our own file, in eval mode on the CPU.

        Raises:
            CheckpointError: the file cannot be read or holds another network.
        """
        checkpoint = read_checkpoint(path)
        if checkpoint.dims is None:
            dims = _published_dims(checkpoint)
        else:
            dims = checkpoint.dims_as(TacotronDims, cls.__name__)
        return checkpoint.build(cls, dims, ignore=_NOT_WEIGHTS)

    def forward(
        self,
        symbols: Tensor,
        mel: Tensor,
        voices: Tensor,
        mel_lengths: Tensor | None = None,
        own_frames: float = 0.0,
    ) -> TacotronOutput:
        """Teacher-forced: each step is told the true frame before it.

        Attention does not depend on the two large recurrences behind it, so only attention
        runs step by step; they run over all steps at once. The published network attends to text and voice
        side by side; the weights of attention sum to one, so the voice is what it was and need not be.

        Args:
            symbols: (B, T) ids, padded with 0.
            mel: (B, mels, frames), frames a multiple of r.
            voices: (B, speaker), unit length.
            mel_lengths: (B,) frames of each item; without it all are taken as full.
            own_frames: chance that a frame told is the network's own, from one pass beforehand, in place of the true
                one (Duckworth et al., 2019, Parallel Scheduled Sampling).
        """
        dropout = Dropout(p=self.dims.dropout)
        encoded = self._encode(symbols, voices, dropout)
        if own_frames:
            with torch.no_grad():
                own, _, _ = self.decode(encoded, mel, voices, dropout)
            drawn = torch.rand(mel.shape[0], 1, mel.shape[2], device=mel.device) < own_frames
            mel = torch.where(drawn, own.to(mel), mel)
        made, stop, alignments = self.decode(encoded, mel, voices, dropout)
        post = self.post_proj(self.postnet(made, mel_lengths)).transpose(1, 2)
        return TacotronOutput(made, post, alignments, torch.sigmoid(stop).repeat_interleave(self.dims.r, dim=1))

    def decode(self, encoded: Encoded, mel: Tensor, voices: Tensor, dropout: Dropout) -> tuple[Tensor, Tensor, Tensor]:
        """`forward` between encoder and post-net: mel (B, mels, frames), stop logits (B, steps), alignments (B, steps,
        T)."""
        d, decoder = self.dims, self.decoder
        if mel.shape[2] % d.r:
            raise ValueError(f"{mel.shape[2]} frames are no multiple of r = {d.r}")
        text, keys, outside, weights = encoded
        go = mel.new_zeros(mel.shape[0], d.mels, 1)
        previous = torch.cat([go, mel[:, :, d.r - 1 : -1 : d.r]], dim=2).transpose(1, 2)
        gates = decoder.gates(decoder.prenet(previous, dropout), voices, first=True)
        hidden, seen, alignments = attend_all(gates, text, keys, outside, weights)
        x = decoder.enter(seen, voices[:, None], hidden)
        for cell in (decoder.res_rnn1, decoder.res_rnn2):
            x = x + _run_lstm(cell, x)
        made, stop = decoder.frames(x, seen, voices[:, None], d.r)  # (B, steps, mels, r), (B, steps)
        return made.transpose(1, 2).flatten(2), stop, alignments

    @torch.inference_mode()
    def generate(
        self,
        texts: Sequence[Sequence[int]],
        voices: Tensor,
        seeds: Sequence[int],
        max_frames: int = _MAX_FRAMES,
    ) -> list[Spoken]:
        """Speaks each text; the model must be in eval mode.

        An item's result depends on its own text, voice and seed alone, not on its companions.

        Args:
            texts: ids per item, ending in the end symbol.
            voices: (B, speaker).
            seeds: one per item, for the prenet's dropout.
            max_frames: where to cut off; also at 20 frames a symbol plus 200, which no one
                who speaks reaches.
        """
        d = self.dims
        device = self.post_proj.weight.device
        lengths = torch.tensor([len(text) for text in texts])
        symbols = nn.utils.rnn.pad_sequence([torch.tensor(t) for t in texts], batch_first=True).to(device)
        voices = voices.to(device)
        dropout = Dropout(seeds, d.speaking_dropout)
        encoded = self._encode(symbols, voices, dropout)
        state = None
        frame = voices.new_zeros(len(texts), d.mels)
        limits = (20 * lengths + 200).clamp(max=max_frames)
        ends = limits.clone()  # in frames
        finished = torch.zeros(len(texts), dtype=torch.bool)
        mels, alignments = [], []
        for start in range(0, int(limits.max()), d.r):
            made, stop, alignment, state = self.decoder.step(frame, voices, state, encoded, dropout, d.r)
            frame = made[:, :, -1]
            mels.append(made)
            alignments.append(alignment)
            if start > _MIN_STOP_FRAME:
                stopping = (stop.cpu() > 0) & ~finished & (start < limits)
                ends[stopping] = start + d.r
                finished |= stopping
                if (finished | (start + d.r >= limits)).all():
                    break
        mel = torch.cat(mels, dim=2)
        ends = ends.clamp(max=mel.shape[2])
        post = self.post_proj(self.postnet(mel, ends.to(device))).transpose(1, 2).cpu()
        alignment = torch.stack(alignments, dim=1).cpu()
        return [
            Spoken(
                _without_trailing_quiet(post[i, :, : ends[i]], d.quiet),
                alignment[i, : -(-int(ends[i]) // d.r), : lengths[i]],
                bool(finished[i]),
            )
            for i in range(len(texts))
        ]

    def _encode(self, symbols: Tensor, voices: Tensor, dropout: Dropout) -> Encoded:
        decoder, outside = self.decoder, symbols == PAD_ID
        text = self.encoder(symbols, (~outside).sum(dim=1), dropout)
        told = torch.cat([text, voices[:, None].expand(-1, text.shape[1], -1)], dim=2)
        keys = decoder.attn_net.keys(self.encoder_proj(told))
        return text, keys, outside, decoder.attn_net.weights(decoder.attn_rnn, text.shape[2])


def _mask(lengths: Tensor, size: int) -> Tensor:
    """(B,) -> (B, size), 1 within each length, else 0."""
    return (torch.arange(size, device=lengths.device) < lengths[:, None]).float()


def _run_lstm(cell: nn.LSTMCell, x: Tensor) -> Tensor:
    """The cell over all steps of (B, steps, features) from a zero state, by the fused kernel."""
    zeros = x.new_zeros(1, x.shape[0], cell.hidden_size)
    weights = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
    return torch.lstm(x, (zeros, zeros), weights, True, 1, 0.0, cell.training, False, True)[0]


def _without_trailing_quiet(mel: Tensor, quiet: float) -> Tensor:
    loud = torch.nonzero(mel.amax(dim=0) >= quiet)
    return mel[:, : int(loud[-1]) + 1 if len(loud) else 1]


def _published_dims(checkpoint: Checkpoint) -> TacotronDims:
    """Dimensions read off a published file's shapes."""
    t = checkpoint.tensors
    try:
        dims = TacotronDims(
            embedding=t["encoder.embedding.weight"].shape[1],
            encoder=t["encoder.pre_net.fc1.weight"].shape[0],
            encoder_kernels=sum(k.startswith("encoder.cbhg.conv1d_bank.") and k.endswith("conv.weight") for k in t),
            decoder=t["encoder_proj.weight"].shape[0],
            lstm=t["decoder.rnn_input.weight"].shape[0],
            postnet=t["postnet.conv_project1.conv.weight"].shape[0],
            postnet_kernels=sum(k.startswith("postnet.conv1d_bank.") and k.endswith("conv.weight") for k in t),
            highways=sum(k.startswith("postnet.highways.") and k.endswith("W1.weight") for k in t),
            mels=t["post_proj.weight"].shape[0],
            speaker=t["encoder_proj.weight"].shape[1] - t["encoder.pre_net.fc1.weight"].shape[0],
            max_r=t["decoder.mel_proj.weight"].shape[0] // t["post_proj.weight"].shape[0],
            r=int(t["decoder.r"]),
            quiet=float(t["stop_threshold"]),
        )
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{checkpoint.path}: not a Tacotron checkpoint ({error} is missing or odd)") from error
    return dims
