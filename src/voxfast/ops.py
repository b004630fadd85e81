"""The native ops, typed.

All are lazy MLX ops: they return unevaluated ``mx.array``, take a stream or device, and
compose with ``mx.eval``, ``mx.async_eval`` and ``mx.compile``. On a CPU stream they run
voxfast's kernels, on a GPU stream the same function composed of MLX's ops.

Dimension letters: B batch, L new positions, S stored positions, C ring capacity, T mel
frames, N samples, H query heads, H_kv KV heads, D head size; of matrix products: N outputs,
K inputs.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import mlx.core as mx
import numpy as np

from voxfast._native import _ext

__all__ = [
    "LinearWeights",
    "alignment_frame",
    "gelu",
    "greedy",
    "linear",
    "linears",
    "log_mel",
    "rms_norm",
    "rotary_tables",
    "sliding_attention",
    "swiglu",
    "use_native",
]

LinearWeights = _ext.LinearWeights
Offset = int | mx.array
Rotary = tuple[mx.array, mx.array]


@contextmanager
def use_native(enabled: bool) -> Iterator[None]:
    """Choose between the CPU kernels (True) and the composition of MLX ops (False).

    Holds for ops that are made inside the ``with`` block, in the whole process. The
    environment variable ``VOXFAST_NATIVE=0`` sets it for good.
    """
    before = _ext.set_native(enabled)
    try:
        yield
    finally:
        _ext.set_native(before)


if os.environ.get("VOXFAST_NATIVE") == "0":
    _ext.set_native(False)


def alignment_frame(
    queries: Sequence[mx.array],
    keys: Sequence[mx.array],
    heads: Sequence[Sequence[int]],
    first: int,
    count: int,
    *,
    stream: mx.Stream | mx.Device | None = None,
) -> mx.array:
    """The audio position that the alignment heads attend to (AlignAtt, arXiv 2305.11408).

    For each head the argmax of ``q · k`` over the positions of the audio, then the median
    over all heads of all layers. Products accumulate in float32; of equal ones the first
    position wins; a NaN never does.

    Args:
        queries: [B, H, L, D] rotated queries of each layer that has alignment heads;
            float32, float16 or bfloat16, in any layout.
        keys: [B, H_kv, S, D] rotated keys of the same layers and dtypes, in any layout (a
            slice of a cache is not copied); H is a multiple of H_kv. They are held until
            the result is evaluated: evaluate it before the next step, which could not
            write a ring in place that is held here.
        heads: the query heads used of each layer, each once.
        first, count: position of the first audio token among the S, and their number.
        stream: where to compute; the default stream if None.

    Returns:
        [B, L] of int32, relative to ``first``: element n // 2 of the n heads' positions in
        ascending order.

    Raises:
        ValueError: on shapes or dtypes that do not fit together, a head that is not there
            or is given twice, and positions beyond S.
    """
    return _ext.alignment_frame(queries, keys, heads, first, count, stream=stream)


def linear(
    x: mx.array,
    w: mx.array,
    scales: mx.array | None = None,
    biases: mx.array | None = None,
    bias: mx.array | None = None,
    *,
    group_size: int = 64,
    bits: int = 4,
    out_dtype: mx.Dtype | None = None,
    stream: mx.Stream | mx.Device | None = None,
) -> mx.array:
    """Matrix product with weights as models store them: ``x @ w.T + bias``.

    Products are accumulated in float32 whatever the dtypes. On CPU streams a row's result
    depends neither on the rows beside it nor on the number of threads; weights are read as
    they lie. Products with packed weights are exact integers up to the
    size of a group: x is rounded to 15 bits and sign with one power of two for each group,
    which loses 2⁻¹⁵ of the greatest number in it at most, and of half precision hardly
    anything. GPU streams and macOS use MLX's own products.

    Args:
        x: [..., K], float32, float16 or bfloat16, of any strides.
        w: [N, K] of such floats, or [N, K1, K2, ...] where x is [..., K1, K2, ...]; or uint32
            [N, K · bits / 32] as ``mx.quantize`` packs it.
        scales, biases: [N, K / group_size] floats of one dtype, for packed w only: a weight
            is ``code * scale + bias`` of its group.
        bias: [N] floats, added to every row.
        group_size: of packed w: 32, 64 or 128.
        bits: of packed w: 2, 3, 4, 5, 6 or 8.
        out_dtype: float32, float16 or bfloat16; None for what MLX promotes the arguments to.
            Asking for float32 keeps what is accumulated; where MLX multiplies, it is
            rounded first.
        stream: where to compute; the default stream if None.

    Returns:
        [..., N].

    Raises:
        ValueError: on shapes or dtypes that do not fit together, and on another group size,
            number of bits, or dtype.
    """
    weights = LinearWeights(w, scales, biases, bias, group_size, bits)
    return _ext.linears(x, [weights], out_dtype=out_dtype, stream=stream)[0]


def linears(
    x: mx.array,
    weights: Sequence[LinearWeights],
    *,
    out_dtype: mx.Dtype | None = None,
    stream: mx.Stream | mx.Device | None = None,
) -> list[mx.array]:
    """Several products of one ``x``: what :func:`linear` gives for each, as one op.

    Queries, keys and values, for one. A CPU prepares ``x`` once and divides all outputs among
    its threads at once, which counts where ``x`` is one row.

    Args:
        x: as of :func:`linear`.
        weights: ``LinearWeights(w, scales, biases, bias, group_size, bits)`` each, with the
            arguments of :func:`linear`; of any formats.
        out_dtype, stream: as of :func:`linear`.

    Returns:
        [..., N] for each of the weights.

    Raises:
        ValueError: as :func:`linear`, and if there are no weights.
    """
    return _ext.linears(x, weights, out_dtype=out_dtype, stream=stream)


def log_mel(
    samples: mx.array,
    *,
    n_mels: int = 128,
    log_floor: float | None = None,
    shift: float = 0.0,
    scale: float = 1.0,
    stream: mx.Stream | mx.Device | None = None,
) -> mx.array:
    """Log-mel spectrogram of 16 kHz audio, frames first, in one pass.

    ``x = log10(max(filterbank · |rfft(hann · frame)|², 1e-10))``, then
    ``(max(x, log_floor) + shift) * scale``. Frames are 400 samples, 160 apart; the window
    is the periodic Hann window, the filterbank Slaney's (0-8000 Hz, Slaney norm), as in
    Whisper's front end (arXiv 2212.04356) and those of Voxtral and Qwen3-ASR.

    On the CPU the power is computed in float64: on speech x is within 1e-6 of the exact
    logarithm (1e-4 when composed of MLX's float32 ops). A frame depends on its own 400
    samples alone, bit for bit, not on its place among others; with a NaN among them it is
    NaN. Gradients go through the composition.

    Args:
        samples: [..., N] audio at 16 kHz; float32, float16 or bfloat16; N ≥ 400. Frame t
            covers samples 160·t to 160·t + 399. Nothing is padded.
        n_mels: number of mel bins.
        log_floor: least value of x, in log10 units; None leaves x alone.
        shift, scale: applied last.
        stream: where to compute; the default stream if None.

    Returns:
        [..., T, n_mels] of float32, T = (N - 400) // 160 + 1.

    Raises:
        ValueError: on another dtype, fewer than 400 samples, or options out of range.
    """
    return _ext.log_mel(samples, n_mels, log_floor, shift, scale, stream=stream)


def rotary_tables(offset: int, length: int, head_size: int, theta: float) -> Rotary:
    """Cosines and sines of the rotary angles of ``length`` positions from ``offset``.

    Angles are computed in float64 and only then rounded, so a position after months is as
    exact as one in the first minute; in float32 (``mx.fast.rope``) the angles of a
    position after a day are off by 2 %. Roformer, arXiv 2104.09864.

    Args:
        offset: absolute position of the first row, ≥ 0.
        length: number of positions, L.
        head_size: D, even.
        theta: base of the geometric progression of wavelengths.

    Returns:
        (cos, sin), each [1, L, D / 2] of float32.

    Raises:
        ValueError: on a negative offset, an odd head size, a length below 1, or positions
            beyond 2^53, where float64 has no integers left.
    """
    if offset < 0 or length < 1 or head_size < 2 or head_size % 2:
        raise ValueError(
            "[rotary_tables] needs offset >= 0, length >= 1 and an even head_size; "
            f"got {offset}, {length} and {head_size}"
        )
    if offset + length > 1 << 53:
        raise ValueError(f"[rotary_tables] positions end at 2^53; got {length} from {offset} on")
    frequencies = theta ** (-np.arange(0, head_size, 2, dtype=np.float64) / head_size)
    positions = np.arange(offset, offset + length, dtype=np.float64)
    angles = positions[:, None] * frequencies
    return (
        mx.array(np.cos(angles)[None].astype(np.float32)),
        mx.array(np.sin(angles)[None].astype(np.float32)),
    )


def sliding_attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    keys: mx.array,
    values: mx.array,
    offset: Offset,
    *,
    window: int,
    scale: float,
    rotary: Rotary | None = None,
    traditional: bool = True,
    causal: bool = True,
    stream: mx.Stream | mx.Device | None = None,
) -> tuple[mx.array, mx.array, mx.array]:
    """Write L new rows into a ring of keys and values and attend within the window.

    Position p lies at slot ``p mod C`` of the ring and attends to positions
    ``max(0, p - window + 1)`` to p. No row is moved, no mask is made, nothing is
    concatenated.

    Args:
        q: [B, L, H, D], float32, float16 or bfloat16; L ≥ 1.
        k, v: [B, L, H_kv, D] of the same dtype; H is a multiple of H_kv.
        keys, values: the rings, [B, H_kv, C, D] of the same dtype. They are donated: hold
            no other reference to them, and use the returned ones afterwards; a ring that
            is still held elsewhere has to be copied.
        offset: position of the first new row: an int, or [B] of int64, one for each row of
            the batch.
        window: positions that one position sees, itself included.
        scale: factor of the scores, usually ``D ** -0.5``.
        rotary: (cos, sin) of the new positions, [1 or B, L, D / 2] of float32, from
            :func:`rotary_tables`; q and k are rotated, and k is stored rotated.
        traditional: rotate the pairs (0, 1), (2, 3), …; False: (0, D/2), (1, D/2 + 1), ….
        causal: False lets every new position attend to what the last of them attends to.
        stream: where to compute; the default stream if None.

    Returns:
        (out, keys, values): out is [B, L, H, D] of q's dtype, accumulated in float32.

    Raises:
        ValueError: on shapes or dtypes that do not fit together, and when the ring is too
            small: it takes C ≥ window + L - 1, or C ≥ offset + L while nothing wraps.
        RuntimeError: at evaluation, when that is so for an offset given as an array.
    """
    if isinstance(offset, int):
        capacity, length = keys.shape[2] if keys.ndim == 4 else 0, q.shape[1] if q.ndim > 1 else 0
        if offset < 0:
            raise ValueError(f"[sliding_attention] offset must not be negative; got {offset}")
        if capacity < min(offset + length, window + length - 1):
            raise ValueError(
                f"[sliding_attention] a ring of {capacity} rows is too small for {length} new "
                f"rows at offset {offset} with a window of {window}; it needs "
                f"{min(offset + length, window + length - 1)}"
            )
        batch = q.shape[0] if q.ndim else 1
        offset = mx.array([offset], dtype=mx.int64)
        if batch != 1:
            offset = mx.broadcast_to(offset, (batch,))
    cos, sin = rotary if rotary is not None else (None, None)
    return _ext.sliding_attention(
        q, k, v, keys, values, offset, window, scale, cos, sin, traditional, causal, stream=stream
    )


def rms_norm(
    x: mx.array,
    weight: mx.array,
    eps: float,
    *,
    stream: mx.Stream | mx.Device | None = None,
) -> mx.array:
    """``x / sqrt(mean(x²) + eps) * weight`` over the last dimension (arXiv 1910.07467).

    Args:
        x: [..., D], float32, float16 or bfloat16.
        weight: [D] of such floats.
        eps: ≥ 0.
        stream: where to compute; the default stream if None.

    Returns:
        [..., D] of the type that MLX promotes x and weight to; on CPU streams computed in
        float32 and rounded once.

    Raises:
        ValueError: on shapes or dtypes that do not fit together, or a negative eps.
    """
    return _ext.rms_norm(x, weight, eps, stream=stream)


def gelu(x: mx.array, *, stream: mx.Stream | mx.Device | None = None) -> mx.array:
    """``x · (1 + erf(x / √2)) / 2`` (arXiv 1606.08415), not its approximation by tanh.

    Args:
        x: of any shape; float32, float16 or bfloat16.
        stream: where to compute; the default stream if None.

    Returns:
        The same shape and dtype, computed in float32 and rounded once.

    Raises:
        ValueError: on another dtype.
    """
    return _ext.gelu(x, stream=stream)


def greedy(
    logits: mx.array, *, stream: mx.Stream | mx.Device | None = None
) -> tuple[mx.array, mx.array]:
    """Greedy decoding: the likeliest token of each row and its probability.

    Args:
        logits: [..., V]; float32, float16 or bfloat16.
        stream: where to compute; the default stream if None.

    Returns:
        tokens [...], uint32: the index of the greatest logit, the first of equal ones; a NaN
            is never the greatest.
        probabilities [...], float32: softmax(logits) there; NaN where any logit is.

    Raises:
        ValueError: on another dtype, or V = 0.
    """
    return _ext.greedy(logits, stream=stream)


def swiglu(
    gate: mx.array, up: mx.array, *, stream: mx.Stream | mx.Device | None = None
) -> mx.array:
    """``gate · sigmoid(gate) · up``, the gated unit of a feed-forward layer (arXiv 2002.05202).

    Args:
        gate, up: of one shape and dtype, float32, float16 or bfloat16.
        stream: where to compute; the default stream if None.

    Returns:
        The same shape and dtype; on CPU streams computed in float32 and rounded once.

    Raises:
        ValueError: on different shapes or dtypes.
    """
    return _ext.swiglu(gate, up, stream=stream)
