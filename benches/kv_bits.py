"""Rings of keys and values in 8 bits, against those in the dtype: memory, error and time.

    python benches/kv_bits.py [--model MODEL] [--dtype bfloat16] [--clips N]
    python benches/kv_bits.py --memory
    python benches/kv_bits.py --op [--rounds 15]

The evaluation clips, streamed in chunks of 80 ms (Qwen3-ASR: blocks of 0.5 s): error rates, and in
how many words the two differ; for Voxtral also in how many tokens, by edit distance. ``error`` is
the largest difference of an attention output of Voxtral in the run with 8 bits to that of the same
queries, keys and values in rings of the dtype, divided by the largest output of the layer.

``--memory``: the rings of sessions at full size with full windows, allocated here.

``--op``: one call at the sizes of Voxtral 4B, in turns: milliseconds of processor time per thread
(medians), and the largest difference to rings of float32 for normal numbers.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import numpy as np

import voxfast
from voxfast._native import _ext
from voxfast.bench.random_models import VOXTRAL_4B
from voxfast.bench.scoring import word_error_rate
from voxfast.cache import SlidingKVCache
from voxfast.models.voxtral import network as voxtral
from voxfast.models.voxtral.passes import MAX_ROWS
from voxfast.models.voxtral.stream import VoxtralStream
from voxfast.ops import SCALE_BYTES, sliding_attention

sys.path.insert(0, "tests")
from evaluation import EvalItem, load_eval_items

SIZES = {  # rows, query heads, KV heads, head size, window
    "decoder, 1 row": (1, 32, 8, 128, 8192),
    "decoder, 4 rows": (4, 32, 8, 128, 8192),
    "decoder, 16 rows": (16, 32, 8, 128, 8192),
    "encoder, 4 rows": (4, 32, 32, 64, 750),
    "encoder, 24 rows": (24, 32, 32, 64, 750),
}
KINDS = {"float32": (mx.float32, None), "bfloat16": (mx.bfloat16, None), "8 bits": (mx.bfloat16, 8)}


# ---- evaluation clips ---------------------------------------------------------------------


class Compared(SlidingKVCache):
    """A cache in 8 bits with a twin in the dtype of the keys."""

    errors: list[float] = []  # noqa: RUF012 # of all caches

    def __init__(self, window: int, **options: Any) -> None:
        super().__init__(window, **options)
        self._twin = SlidingKVCache(window, **{**options, "kv_bits": None})

    def attend(self, q: mx.array, k: mx.array, v: mx.array, **options: Any) -> mx.array:
        out = super().attend(q, k, v, **options)
        true = self._twin.attend(q, k, v, **options).astype(mx.float32)
        error = mx.abs(out - true).max() / mx.abs(true).max()
        self.errors.append(error.item())  # here, on the thread of the arrays
        return out

    def trim(self, n: int) -> int:
        self._twin.trim(n)
        return super().trim(n)

    @property
    def state(self) -> tuple[mx.array, ...]:
        return (*super().state, *self._twin.state)


def distance(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Insertions, deletions and substitutions from one to the other."""
    row = np.arange(len(b) + 1)
    other = np.array(b, dtype=object)
    for i, item in enumerate(a, 1):
        steps = np.minimum(row[1:] + 1, row[:-1] + (other != item))
        row = np.minimum.accumulate(np.concatenate([[i], steps]) - np.arange(len(row)))
        row += np.arange(len(row))
    return int(row[-1])


@contextmanager
def noting_tokens() -> Iterator[list[int]]:
    """The tokens that Voxtral's streams write, in order."""
    tokens: list[int] = []
    make = VoxtralStream.__init__

    def noted(self: Any, *args: Any, **options: Any) -> None:
        make(self, *args, **options, on_token=lambda token: tokens.append(token.id))

    with patch.object(VoxtralStream, "__init__", noted):
        yield tokens


def stream(model: voxfast.Model, items: Sequence[EvalItem]) -> tuple[list[str], list[list[int]]]:
    """The text and the tokens of each clip."""
    options: dict[str, Any] = {} if model.delays_ms else {"language": "en", "block_ms": 500}
    chunk = 1280 if model.delays_ms else 8000
    texts, tokens = [], []
    for item in items:
        with noting_tokens() as written, model.session(**options) as session:
            words = []
            for at in range(0, len(item.audio), chunk):
                words += session.feed(item.audio[at : at + chunk])
            words += session.finish()
        texts.append("".join(word.text for word in words))
        tokens.append(written)
    return texts, tokens


def clips(options: argparse.Namespace) -> dict[str, object]:
    items = load_eval_items()[-options.clips :]
    dtype = getattr(mx, options.dtype)
    found = {}
    for kv_bits in (None, 8):
        with voxfast.load(options.model, dtype=dtype, kv_bits=kv_bits) as model:
            found[kv_bits] = stream(model, items)
    truth = [item.transcript for item in items]
    (plain, plain_tokens), (packed, packed_tokens) = found[None], found[8]
    result: dict[str, object] = {
        "model": options.model,
        "dtype": options.dtype,
        "clips": len(items),
        "words": sum(len(text.split()) for text in truth),
        "word_error_rate": round(word_error_rate(truth, plain), 4),
        "word_error_rate_8_bits": round(word_error_rate(truth, packed), 4),
        "words_that_differ": sum(
            distance(a.split(), b.split()) for a, b in zip(plain, packed, strict=True)
        ),
    }
    if any(plain_tokens):
        result["tokens"] = sum(map(len, plain_tokens))
        result["tokens_that_differ"] = sum(map(distance, plain_tokens, packed_tokens))
        with (
            patch.object(voxtral, "SlidingKVCache", Compared),
            voxfast.load(options.model, dtype=dtype, kv_bits=8) as model,
        ):
            stream(model, items[:4])
        result["error"] = round(max(Compared.errors), 4)
        result["error_median"] = round(statistics.median(Compared.errors), 5)
    return result


# ---- memory -------------------------------------------------------------------------------


def memory(_: argparse.Namespace) -> dict[str, object]:
    result: dict[str, object] = {"model": "voxtral-4b"}
    for dtype in (mx.bfloat16, mx.float32):
        for kv_bits in (None, 8):
            before = mx.get_active_memory()
            sizes = [ring_bytes(caches, dtype) for caches in rings_of(kv_bits)]
            held = [rings for rings, _ in sizes]
            name = f"{str(dtype).rpartition('.')[2]}, {kv_bits or 'own'} bits"
            result[name] = {
                "encoder_mb": round(sizes[0][1] / 1e6, 1),
                "decoder_mb": round(sizes[1][1] / 1e6, 1),
                "active_mb": round((mx.get_active_memory() - before) / 1e6, 1),
            }
            del sizes, held
            mx.clear_cache()
    return result


def rings_of(kv_bits: int | None) -> Iterator[tuple[list[SlidingKVCache], tuple[int, int, int]]]:
    """The caches of a session's encoder and decoder, and H, H_kv, D."""
    n_left_pad = 32  # positions of silence before the audio, which the first step takes
    for args, rows in (
        (VOXTRAL_4B.encoder, VOXTRAL_4B.downsample_factor * n_left_pad),
        (VOXTRAL_4B.decoder, MAX_ROWS),
    ):
        caches = [
            SlidingKVCache(args.sliding_window, max_rows=rows, kv_bits=kv_bits)
            for _ in range(args.n_layers)
        ]
        yield caches, (args.n_heads, args.n_kv_heads, args.head_dim)


def ring_bytes(
    of: tuple[list[SlidingKVCache], tuple[int, int, int]], dtype: mx.Dtype
) -> tuple[list[SlidingKVCache], int]:
    """The caches, with rings of full windows, and their bytes."""
    caches, (heads, kv_heads, size) = of
    q, k = (mx.zeros((1, 1, n, size), dtype) for n in (heads, kv_heads))
    for cache in caches:
        cache._rows = cache._reached = cache.window + cache.max_rows
        mx.eval(cache.attend(q, k, k, scale=1.0), cache.state)
    return caches, sum(ring.nbytes for cache in caches for ring in cache.state)


# ---- the op -------------------------------------------------------------------------------


def op(options: argparse.Namespace) -> dict[str, object]:
    mx.set_default_device(mx.cpu)
    found: dict[str, object] = {"threads": _ext.num_threads()}
    for name, sizes in SIZES.items():
        calls = {kind: Call(*sizes, *KINDS[kind]) for kind in KINDS}
        seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(options.rounds):
            for kind, call in calls.items():
                begin = time.process_time()
                for _ in range(calls[kind].repeats):
                    call()
                seconds[kind].append((time.process_time() - begin) / call.repeats)
        found[name] = {
            kind: round(1000 * statistics.median(times) / _ext.num_threads(), 3)
            for kind, times in seconds.items()
        } | {"error": difference(*sizes)}
    return found


class Call:
    """The op on rings with full windows of normal numbers, the same for every dtype."""

    def __init__(
        self, rows: int, heads: int, kv_heads: int, size: int, window: int,
        dtype: mx.Dtype, kv_bits: int | None,
    ) -> None:  # fmt: skip
        self.repeats = max(1, int(4e8 / (rows * heads * size * window)))
        self._scale, self._window = size**-0.5, window
        mx.random.seed(0)
        capacity = self._offset = window + rows - 1
        q, k, v = (
            mx.random.normal((1, capacity + rows, n, size)).astype(dtype)
            for n in (heads, kv_heads, kv_heads)
        )
        shape = (1, kv_heads, capacity, size + (SCALE_BYTES if kv_bits else 0))
        self._rings = [mx.zeros(shape, mx.int8 if kv_bits else dtype) for _ in range(2)]
        # With a window of one row, as good as nothing but the rings is computed.
        _, *self._rings = sliding_attention(
            q[:, rows:], k[:, rows:], v[:, rows:], *self._rings, 0, window=1, scale=1.0
        )
        self._new = [x[:, :rows] for x in (q, k, v)]
        mx.eval(self._rings, self._new)

    def __call__(self) -> mx.array:
        out, *self._rings = sliding_attention(
            *self._new, *self._rings, self._offset, window=self._window, scale=self._scale
        )
        self._offset += out.shape[1]
        mx.eval(out, self._rings)
        return out


def difference(*sizes: int) -> float:
    """Of outputs with rings in 8 bits to those with rings of float32, by the largest of these."""
    exact, found = (np.array(Call(*sizes, mx.float32, kv_bits)()) for kv_bits in (None, 8))  # type: ignore[call-arg]
    return round(float(np.abs(found - exact).max() / np.abs(exact).max()), 5)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=voxfast.DEFAULT_MODEL)
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--clips", type=int, default=41, help="the last so many of the 41")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--op", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    run: Callable[[argparse.Namespace], dict[str, object]] = clips
    if options.memory:
        run = memory
    elif options.op:
        run = op
    print(json.dumps(run(options)))


if __name__ == "__main__":
    main()
