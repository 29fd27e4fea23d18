"""Many small operations on a GPU as one: to launch each takes longer than to do it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_MOST = 96  # graphs; each holds on to the memory that one call needs


class Replayed:
    """A function of tensors, recorded as a CUDA graph for each new set of shapes and replayed for known ones.

    The function may only do what a CUDA graph can record: no reading of values on the CPU, nothing drawn at random.
    A graph is never let go: those recorded after it may use the same workspace of cuBLAS, which would go with it
    (PyTorch issue 193402). Once there are `_MOST`, other shapes are computed without.

    Args:
        function: of tensors on one GPU, and of other values that can be keys of a dictionary, to a tuple of tensors.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]]):
        self._function = function
        self._recordings: dict[tuple, _Recording] = {}

    def __call__(self, *arguments: Any) -> tuple[Tensor, ...]:
        key = tuple((x.shape, x.dtype, x.device) if isinstance(x, Tensor) else x for x in arguments)
        if key not in self._recordings:
            if len(self._recordings) == _MOST:
                return self._function(*arguments)
            with torch.inference_mode(False):  # or it could not be replayed outside of that
                self._recordings[key] = _Recording(self._function, arguments)
        return self._recordings[key].replay(arguments)


class _Recording:
    def __init__(self, function: Callable[..., tuple[Tensor, ...]], arguments: tuple[Any, ...]):
        self.inputs = [x.detach().clone() if isinstance(x, Tensor) else x for x in arguments]
        self.graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # what is set up once, by libraries too, must not be recorded
            function(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        # A loader's thread, which pins memory meanwhile, is no part of it.
        with torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"):
            self.outputs = function(*self.inputs)

    def replay(self, arguments: tuple[Any, ...]) -> tuple[Tensor, ...]:
        for kept, given in zip(self.inputs, arguments, strict=True):
            if isinstance(kept, Tensor):
                kept.copy_(given)
        self.graph.replay()
        return tuple(x.clone() for x in self.outputs)
