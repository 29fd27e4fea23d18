"""The published checkpoints with weights that any machine can rebuild from a seed.

`data/published_layouts.json.gz` lists every name, shape and dtype in the four published files;
`data/golden_seed1.npz` holds what the published networks answered to `probe_inputs` when they were
run once, elsewhere, with exactly these weights.
"""

import gzip
import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).parent / "data"

# network -> the file's published name, and the key its weights are wrapped in
FILES = {
    "encoder": ("encoder.pt", "model_state"),
    "synthesizer": ("synthesizer.pt", "model_state"),
    "vocoder": ("vocoder.pt", "model_state"),
    "lip2speech": ("lip2speech_final.pth", "state_dict"),
}


def layout(network: str) -> dict[str, tuple[list[int], str]]:
    """Name -> (shape, dtype) of every tensor in a published file."""
    return json.loads(gzip.decompress((DATA / "published_layouts.json.gz").read_bytes()))[network]


def fill(layout: dict[str, tuple[list[int], str]], seed: int = 1, prefix: str = "") -> dict[str, Tensor]:
    """Weights for a layout. Every tensor has its own seed, which depends on all names in the layout;
    with a `prefix` only the tensors below it are made, with the same values."""
    tensors = {}
    for i, name in enumerate(sorted(layout)):
        if not name.startswith(prefix):
            continue
        shape, dtype = layout[name]
        generator = torch.Generator().manual_seed(seed * 100_003 + i)
        if "int" in dtype:
            tensor = torch.zeros(shape, dtype=getattr(torch, dtype))
        elif name.endswith("running_var"):
            tensor = torch.rand(shape, generator=generator) * 0.5 + 0.75
        elif len(shape) >= 2:
            tensor = torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))
        elif name.endswith("weight"):
            tensor = 1 + 0.1 * torch.randn(shape, generator=generator)
        else:
            tensor = 0.05 * torch.randn(shape, generator=generator)
        tensors[name] = tensor
    if "decoder.r" in tensors:
        tensors["decoder.r"] = torch.tensor(2, dtype=torch.int32)
        tensors["stop_threshold"] = torch.tensor(-3.4)
    return tensors


def published(network: str, prefix: str = "") -> dict[str, Tensor]:
    """The weights of encoder, synthesizer, vocoder or lip2speech for seed 1."""
    return fill(layout(network), prefix=prefix)


def write_published(network: str, folder: Path, prefix: str = "") -> Path:
    """Writes the file as it was published (wrapped, under its name) and returns its path."""
    name, wrapper = FILES[network]
    torch.save({wrapper: published(network, prefix)}, folder / name)
    return folder / name


def probe_inputs() -> dict[str, Tensor]:
    """The inputs that belong to `golden`."""
    generator = torch.Generator().manual_seed(7)
    return {
        "vocoder_x": torch.rand(2, 1000, generator=generator) * 2 - 1,
        "vocoder_mel": torch.rand(2, 80, 9, generator=generator) * 2 - 1,
        "taco_chars": torch.randint(2, 60, (2, 23), generator=generator),
        "taco_mel": torch.randn(2, 80, 24, generator=generator),
        "embed": torch.nn.functional.normalize(torch.rand(2, 256, generator=generator), dim=1),
        "face": torch.rand(2, 3, 160, 160, generator=generator) * 2 - 1,
        "speech_mel": torch.rand(3, 160, 40, generator=generator),
    }


def golden() -> dict[str, Tensor]:
    """Output name -> what the published network answered."""
    with np.load(DATA / "golden_seed1.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def relative_error(answer: Tensor, reference: Tensor) -> float:
    """Frobenius norm of the difference over that of the reference."""
    return float((answer - reference).norm() / reference.norm())
