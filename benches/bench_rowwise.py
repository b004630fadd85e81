"""rms_norm, swiglu, gelu and greedy: the kernels against their compositions and the roofline.

    pytest benches/bench_rowwise.py --benchmark-enable

The shapes are those between the products of Voxtral 4B's decoder (one position and a prefill) and
of Qwen3-ASR 0.6B's audio tower (one window), and the logits of both. The roofline is one read of
everything that goes in and comes out, as memchr does it on all threads.
"""

import mlx.core as mx
import pytest
from roofline import read_seconds

from voxfast.ops import gelu, greedy, rms_norm, swiglu, use_native

# op → [rows, width] of an array, how many arrays go in and out
SHAPES = {
    "rms_norm": ([(1, 3072), (39, 3072)], 2),
    "swiglu": ([(1, 9216), (39, 9216)], 3),
    "gelu": ([(13, 3584), (104, 3584)], 2),
    "greedy": ([(1, 131072), (1, 151936)], 1),
}
CASES = [(op, shape) for op, (shapes, _) in SHAPES.items() for shape in shapes]


@pytest.fixture(autouse=True, scope="module")
def on_the_cpu():
    mx.set_default_device(mx.cpu)


CALLS = {
    "rms_norm": lambda x, y: rms_norm(x, y[0], 1e-5),
    "swiglu": swiglu,
    "gelu": lambda x, _: gelu(x),
    "greedy": lambda x, _: greedy(x),
}


@pytest.mark.parametrize("backend", ["native", "composed"])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("op", "shape"), CASES, ids=[f"{o}-{m}x{n}" for o, (m, n) in CASES])
def test_rowwise(benchmark, op, shape, dtype, backend):
    x, y = (mx.random.normal(shape).astype(dtype) for _ in range(2))
    mx.eval(x, y)
    benchmark.group = f"{op} of {shape[0]} x {shape[1]}, {str(dtype).rpartition('.')[2]}"
    benchmark.extra_info["backend"] = backend
    if benchmark.enabled:
        benchmark.extra_info["roofline"] = read_seconds(x.nbytes * SHAPES[op][1])

    def run() -> None:
        with use_native(backend == "native"):
            mx.eval(CALLS[op](x, y))

    benchmark(run)
