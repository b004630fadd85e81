"""Types of the extension; see csrc/bindings.cpp. Ops are documented in voxfast.ops."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt

built_for_mlx: str

def is_native() -> bool: ...
def set_native(on: bool) -> bool: ...
def set_gpu_graphs(on: bool) -> bool: ...
def fused_kernel(name: str, inputs: Sequence[mx.array]) -> mx.array: ...
def isa() -> str: ...
def available_isas() -> list[str]: ...
def num_threads() -> int: ...
def ring_copies() -> int: ...
def runs_kernels(*, stream: mx.Stream | mx.Device | None = None) -> bool: ...
def empty(
    shape: Sequence[int], dtype: mx.Dtype, *, stream: mx.Stream | mx.Device | None = None
) -> mx.array: ...
def alignment_frame(
    queries: Sequence[mx.array],
    keys: Sequence[mx.array],
    heads: Sequence[Sequence[int]],
    first: int,
    count: int,
    *,
    stream: mx.Stream | mx.Device | None = None,
) -> mx.array: ...

class LinearWeights:
    def __init__(
        self,
        w: mx.array,
        scales: mx.array | None = None,
        biases: mx.array | None = None,
        bias: mx.array | None = None,
        group_size: int = 64,
        bits: int = 4,
    ) -> None: ...

def linears(
    x: mx.array,
    weights: Sequence[LinearWeights],
    *,
    out_dtype: mx.Dtype | None = None,
    stream: mx.Stream | mx.Device | None = None,
) -> list[mx.array]: ...
def log_mel(
    samples: mx.array,
    n_mels: int = 128,
    log_floor: float | None = None,
    shift: float = 0.0,
    scale: float = 1.0,
    *,
    stream: mx.Stream | mx.Device | None = None,
) -> mx.array: ...
def sliding_attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    keys: mx.array,
    values: mx.array,
    offset: int | mx.array,
    window: int,
    scale: float,
    cos: mx.array | None = None,
    sin: mx.array | None = None,
    traditional: bool = True,
    causal: bool = True,
    *,
    stream: mx.Stream | mx.Device | None = None,
) -> tuple[mx.array, mx.array, mx.array]: ...
def sliding_attentions(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    keys: Sequence[mx.array],
    values: Sequence[mx.array],
    offsets: Sequence[int],
    lengths: Sequence[int],
    window: int,
    scale: float,
    cos: mx.array | None = None,
    sin: mx.array | None = None,
    traditional: bool = True,
    causal: bool = True,
    *,
    stream: mx.Stream | mx.Device | None = None,
) -> tuple[mx.array, list[mx.array], list[mx.array]]: ...
def rotate(
    x: mx.array,
    cos: mx.array,
    sin: mx.array,
    traditional: bool = True,
    *,
    stream: mx.Stream | mx.Device | None = None,
) -> mx.array: ...
def rms_norm(
    x: mx.array, weight: mx.array, eps: float, *, stream: mx.Stream | mx.Device | None = None
) -> mx.array: ...
def gelu(x: mx.array, *, stream: mx.Stream | mx.Device | None = None) -> mx.array: ...
def greedy(
    logits: mx.array, *, stream: mx.Stream | mx.Device | None = None
) -> tuple[mx.array, mx.array]: ...
def swiglu(
    gate: mx.array, up: mx.array, *, stream: mx.Stream | mx.Device | None = None
) -> mx.array: ...

class VoiceNetwork:
    @staticmethod
    def make(
        layers: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]],
        output: npt.NDArray[np.float32],
        output_bias: float,
    ) -> VoiceNetwork: ...
    def run(
        self,
        samples: npt.NDArray[np.float32],
        hidden: npt.NDArray[np.float32],
        cell: npt.NDArray[np.float32],
        probabilities: npt.NDArray[np.float32],
    ) -> None: ...
