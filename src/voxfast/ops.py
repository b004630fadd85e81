"""The native ops, typed.

All are lazy MLX ops: they return unevaluated arrays, take a stream or device, and work with
``mx.eval``, ``mx.async_eval`` and ``mx.compile``. CPU streams run voxfast's kernels; GPU
streams run compositions of MLX's ops, in few dispatches.

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
    "SCALE_BYTES",
    "LinearWeights",
    "alignment_frame",
    "gelu",
    "greedy",
    "linear",
    "linears",
    "log_mel",
    "rms_norm",
    "rotary_tables",
    "rotate",
    "sliding_attention",
    "sliding_attentions",
    "swiglu",
    "use_native",
]

LinearWeights = _ext.LinearWeights
Offset = int | mx.array
Rotary = tuple[mx.array, mx.array]
Rings = tuple[mx.array, mx.array]  # keys, values
SCALE_BYTES = 4  # of a row of a ring in 8 bits, behind its codes


@contextmanager
def use_native(enabled: bool) -> Iterator[None]:
    """Run CPU streams on voxfast's kernels (True) or on the compositions of MLX ops (False).

    Applies to ops created inside the ``with`` block, in all threads. The environment variable
    ``VOXFAST_NATIVE=0`` makes False the default.
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
    """The attended frame: the audio position that alignment heads attend to.

    For each head the argmax of ``q · k`` over the audio positions, then the median over all
    heads of all layers (AlignAtt, arXiv 2305.11408). Products accumulate in float32. Of equal
    scores the first position wins; a NaN never wins.

    Args:
        queries: [B, H, L, D] for each layer with alignment heads, rotated; float32, float16 or
            bfloat16, in any layout.
        keys: [B, H_kv, S, D] for the same layers, of the same dtypes, rotated, in any layout, or
            those of a ring in 8 bits, [B, H_kv, S, D + 4] of int8 (:func:`sliding_attention`);
            H is a multiple of H_kv. A slice of a cache is not copied. Evaluate the result
            before the next step: until then it references the keys, and a referenced ring
            cannot be updated in place.
        heads: for each layer the indices of its alignment heads, without repetition.
        first: position of the first audio token among the S.
        count: number of audio tokens.
        stream: where to compute; the default stream if None.

    Returns:
        [B, L] of int32, relative to ``first``: element n // 2 of the n heads' positions in
        ascending order.

    Raises:
        ValueError: for shapes or dtypes that do not match, a head that is out of range or
            given twice, and positions beyond S.
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
    """A linear layer, ``x @ w.T + bias``, with float or packed weights.

    Accumulates in float32. On CPU streams a row's result depends neither on the other rows nor
    on the number of threads. With packed weights they quantize x to 15 bits and sign, with a
    power of two as the scale of each group, and multiply integers exactly. The error of an
    input is at most 2⁻¹⁵ of the largest input of its group; half-precision inputs are nearly
    exact. GPU streams and macOS use MLX's matrix products.

    Args:
        x: [..., K], or [..., K1, K2, ...] if w is [N, K1, K2, ...]; float32, float16 or
            bfloat16; any strides.
        w: [N, K] or [N, K1, K2, ...] of float32, float16 or bfloat16; or packed by
            ``mx.quantize``: [N, K · bits / 32] of uint32.
        scales, biases: [N, K / group_size], for packed w only, of the same float dtype. A
            weight is ``code * scale + bias`` of its group.
        bias: [N] of float32, float16 or bfloat16, added to every row.
        group_size: inputs per group of packed w: 32, 64 or 128.
        bits: bits per code of packed w: 2, 3, 4, 5, 6 or 8.
        out_dtype: float32, float16 or bfloat16; None for the type that MLX promotes the
            arguments to. float32 returns the accumulated sums on CPU streams; MLX's products
            are rounded before they are converted.
        stream: where to compute; the default stream if None.

    Returns:
        [..., N].

    Raises:
        ValueError: for shapes or dtypes that do not match, and for another group size, number
            of bits or dtype.
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
    """Several linear layers of one ``x`` as one op, for example queries, keys and values.

    The results are those of :func:`linear`. On a CPU stream x is prepared once, and all outputs
    are divided among the threads together, which is faster if x has few rows.

    Args:
        x: as for :func:`linear`.
        weights: one ``LinearWeights(w, scales, biases, bias, group_size, bits)`` per layer, with
            the arguments of :func:`linear`. Formats may differ.
        out_dtype, stream: as for :func:`linear`.

    Returns:
        [..., N] for each layer.

    Raises:
        ValueError: as :func:`linear`, and if ``weights`` is empty.
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

    CPU streams compute the power in float64: on speech x is within 1e-6 of the exact logarithm
    (GPU streams: 1e-4, in float32). A frame depends on its 400 samples only, bit for bit, not on
    its position; if one of them is NaN, the frame is NaN.

    Args:
        samples: [..., N] audio at 16 kHz; float32, float16 or bfloat16; N ≥ 400. Frame t
            covers samples 160·t to 160·t + 399. Nothing is padded.
        n_mels: number of mel bins.
        log_floor: lower limit of x, in log10 units; None for no limit but that of 1e-10.
        shift, scale: applied last.
        stream: where to compute; the default stream if None.

    Returns:
        [..., T, n_mels] of float32, T = (N - 400) // 160 + 1.

    Raises:
        ValueError: for another dtype, fewer than 400 samples, or options out of range.
    """
    return _ext.log_mel(samples, n_mels, log_floor, shift, scale, stream=stream)


def rotary_tables(
    offset: int | Sequence[int], length: int | Sequence[int], head_size: int, theta: float
) -> Rotary:
    """Cosines and sines of the rotary embedding (RoFormer, arXiv 2104.09864).

    Angles are computed in float64 and the results rounded, so positions after months are as
    exact as those of the first minute. In float32 (``mx.fast.rope``) the angles of a position
    after a day are off by 2 %.

    Args:
        offset: first position, ≥ 0; of several streams, one after the other, a sequence.
        length: number of positions, L; of several streams a sequence, L in all.
        head_size: D, even.
        theta: base of the geometric progression of wavelengths.

    Returns:
        (cos, sin), each [1, L, D / 2] of float32.

    Raises:
        ValueError: for a negative offset, an odd head size, a length below 1, or positions
            beyond 2^53, up to which float64 represents all integers.
    """
    offsets = [offset] if isinstance(offset, int) else list(offset)
    lengths = [length] if isinstance(length, int) else list(length)
    spans = list(zip(offsets, lengths, strict=True))
    if head_size < 2 or head_size % 2 or not spans or any(a < 0 or n < 1 for a, n in spans):
        raise ValueError(
            "[rotary_tables] needs offset >= 0, length >= 1 and an even head_size; "
            f"got {offset}, {length} and {head_size}"
        )
    if any(a + n > 1 << 53 for a, n in spans):
        raise ValueError(f"[rotary_tables] positions end at 2^53; got {length} from {offset} on")
    frequencies = theta ** (-np.arange(0, head_size, 2, dtype=np.float64) / head_size)
    positions = np.concatenate([np.arange(a, a + n, dtype=np.float64) for a, n in spans])
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
    """Sliding-window attention over ring buffers of keys and values.

    Writes the keys and values of L new positions to the rings, then attends from those
    positions. Position p is stored in slot ``p mod C`` and attends to positions
    ``max(0, p - window + 1)`` to p. The rings are not shifted or concatenated. On a GPU stream an
    int as the offset is what makes the op lean: 5 dispatches, 2 more where the new rows wrap
    around. A mask is made only if the ring holds rows that a new row must not see, once for all
    layers of a step.

    Args:
        q: [B, L, H, D], float32, float16 or bfloat16; L ≥ 1.
        k, v: [B, L, H_kv, D] of the same dtype; H is a multiple of H_kv.
        keys, values: the rings, [B, H_kv, C, D] of the same dtype, or both in 8 bits,
            [B, H_kv, C, D + 4] of int8: a row has D codes and, in its last bytes, their scale,
            a float32. The scale is the largest magnitude of the row / 127, a number is code ·
            scale, so its error is at most 1/254 of the largest. New rows are read as they are
            stored, too. The rings are donated: hold no other reference, and use the returned
            rings from then on. A ring that is referenced elsewhere is copied.
        offset: the first new position: an int, or [B] of int64 if sequences differ.
        window: number of positions that a position attends to, including itself.
        scale: factor of the scores, usually ``D ** -0.5``.
        rotary: (cos, sin) of the new positions, [1 or B, L, D / 2] of float32, from
            :func:`rotary_tables`. q and k are rotated, and k is stored rotated.
        traditional: rotate the pairs (0, 1), (2, 3), …; False: (0, D/2), (1, D/2 + 1), ….
        causal: if False, all new positions attend to what the last one attends to.
        stream: where to compute; the default stream if None.

    Returns:
        (out, keys, values): out is [B, L, H, D] of q's dtype, accumulated in float32.

    Raises:
        ValueError: for shapes or dtypes that do not match, and for too small a ring: C must be
            at least window + L - 1, or at least offset + L.
        RuntimeError: at evaluation, for too small a ring if ``offset`` is an array.
    """
    cos, sin = rotary if rotary is not None else (None, None)
    return _ext.sliding_attention(
        q, k, v, keys, values, offset, window, scale, cos, sin, traditional, causal, stream=stream
    )


def sliding_attentions(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    rings: Sequence[Rings],
    offsets: Sequence[int],
    lengths: Sequence[int],
    *,
    window: int,
    scale: float,
    rotary: Rotary | None = None,
    traditional: bool = True,
    causal: bool = True,
    stream: mx.Stream | mx.Device | None = None,
) -> tuple[mx.array, list[Rings]]:
    """:func:`sliding_attention` of several streams as one op.

    The results, bit for bit, are those of one call per stream. Rings stay with their streams:
    nothing is copied when a stream joins or leaves.

    Args:
        q: [1, R, H, D], the rows of all streams, one stream after the other.
        k, v: [1, R, H_kv, D].
        rings: the keys and values of each stream, [1, H_kv, C, D], or in 8 bits [1, H_kv, C,
            D + 4]; capacities and bits may differ. They are donated.
        offsets: the first new position of each stream.
        lengths: rows of each stream, ≥ 1, R in all.
        window, scale, traditional, causal, stream: as for :func:`sliding_attention`.
        rotary: (cos, sin) of all rows, [1, R, D / 2] of float32.

    Returns:
        (out, rings): out is [1, R, H, D].

    Raises:
        ValueError: as :func:`sliding_attention`, and for lengths that do not sum to R.
    """
    cos, sin = rotary if rotary is not None else (None, None)
    keys, values = [ring[0] for ring in rings], [ring[1] for ring in rings]
    out, keys, values = _ext.sliding_attentions(
        q, k, v, keys, values, offsets, lengths, window, scale, cos, sin, traditional, causal,
        stream=stream,
    )  # fmt: skip
    return out, list(zip(keys, values, strict=True))


def rotate(
    x: mx.array,
    rotary: Rotary,
    *,
    traditional: bool = True,
    stream: mx.Stream | mx.Device | None = None,
) -> mx.array:
    """Rotary embedding as :func:`sliding_attention` applies it to queries.

    Args:
        x: [B, L, H, D], float32, float16 or bfloat16; D even.
        rotary: (cos, sin), [1 or B, 1 or L, D / 2] of float32.
        traditional: as in :func:`sliding_attention`.
        stream: where to compute; the default stream if None.

    Returns:
        The same shape and dtype, computed in float32 and rounded once.

    Raises:
        ValueError: for shapes or dtypes that do not match.
    """
    return _ext.rotate(x, *rotary, traditional, stream=stream)


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
        weight: [D], float32, float16 or bfloat16.
        eps: ≥ 0.
        stream: where to compute; the default stream if None.

    Returns:
        [..., D] of the type that MLX promotes x and weight to; on CPU streams computed in
        float32 and rounded once.

    Raises:
        ValueError: for shapes or dtypes that do not match, or a negative eps.
    """
    return _ext.rms_norm(x, weight, eps, stream=stream)


def gelu(x: mx.array, *, stream: mx.Stream | mx.Device | None = None) -> mx.array:
    """``x · (1 + erf(x / √2)) / 2`` (arXiv 1606.08415), not the tanh approximation.

    Args:
        x: any shape; float32, float16 or bfloat16.
        stream: where to compute; the default stream if None.

    Returns:
        The same shape and dtype, computed in float32 and rounded once.

    Raises:
        ValueError: for another dtype.
    """
    return _ext.gelu(x, stream=stream)


def greedy(
    logits: mx.array, *, stream: mx.Stream | mx.Device | None = None
) -> tuple[mx.array, mx.array]:
    """Greedy decoding: the most likely token of each row and its probability.

    Args:
        logits: [..., V]; float32, float16 or bfloat16.
        stream: where to compute; the default stream if None.

    Returns:
        tokens [...], uint32: the index of the largest logit, the first of equal ones; a NaN is
            never the largest.
        probabilities [...], float32: softmax(logits) at that index; NaN if any logit of the
            row is NaN.

    Raises:
        ValueError: for another dtype, or V = 0.
    """
    return _ext.greedy(logits, stream=stream)


def swiglu(
    gate: mx.array, up: mx.array, *, stream: mx.Stream | mx.Device | None = None
) -> mx.array:
    """``gate · sigmoid(gate) · up``, the gated unit of a feed-forward layer (arXiv 2002.05202).

    Args:
        gate, up: the same shape and dtype: float32, float16 or bfloat16.
        stream: where to compute; the default stream if None.

    Returns:
        The same shape and dtype; on CPU streams computed in float32 and rounded once.

    Raises:
        ValueError: for different shapes, or other or different dtypes.
    """
    return _ext.swiglu(gate, up, stream=stream)
