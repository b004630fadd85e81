"""What a GPU stream is asked to do: the numbers of benches/dispatches.py, held."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import mlx.core as mx
import pytest

from voxfast import ops
from voxfast._native import _ext
from voxfast.bench.plain import PlainQwen3ASR, PlainVoxtral
from voxfast.models.qwen3_asr.network import DecoderRows as QwenRows
from voxfast.models.qwen3_asr.weights import load_qwen3_asr
from voxfast.models.voxtral.network import DecoderRows
from voxfast.ops import greedy

pytestmark = pytest.mark.usefixtures("on_the_cpu")


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    path = Path(__file__).parent.parent / "benches" / "dispatches.py"
    spec = importlib.util.spec_from_file_location("dispatches", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def counted(bench: ModuleType) -> dict[str, Any]:
    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    try:
        found: dict[str, Any] = bench.measure()
    finally:
        mx.set_default_device(before)
    return found


def test_attention_takes_two_rotations_two_writes_and_one_kernel(counted: dict[str, Any]) -> None:
    found = counted["attention_per_layer"]
    five = {"1": 5, "4": 5, "24": 5}
    assert found["voxfast, growing"] == five
    assert found["voxfast, window full"] == five
    assert found["voxfast, rows wrap around"] == {"1": 5, "4": 7, "24": 7}
    assert found["mlx-lm"] == five
    assert found["voxfast, 8 bits"] == {"1": 21, "4": 21, "24": 21}


def test_layers_take_no_more_than_plain_ones(counted: dict[str, Any]) -> None:
    for layer in ("decoder_layer", "encoder_layer"):
        assert counted[layer]["voxfast"] == counted[layer]["mlx-lm"]


@pytest.mark.parametrize("what", ["position", "token"])
def test_a_whole_step_takes_little_more_than_a_plain_one(
    counted: dict[str, Any], what: str
) -> None:
    assert counted[what]["voxfast"] <= 1.15 * counted[what]["mlx-lm"]


def test_ops(counted: dict[str, Any]) -> None:
    most = {
        "alignment_frame, 4 layers": 16, "gelu": 1, "greedy": 4, "log_mel": 5, "swiglu": 1,
    }  # fmt: skip
    assert counted["ops"] == most


def test_counting_counts(bench: ModuleType) -> None:
    """Views are none, a concatenation is one per input, and nothing is counted twice."""
    x = mx.ones((4, 6))
    mx.eval(x)
    y = mx.exp(x.reshape(6, 4).T)
    assert bench.total(y, y + x[:, :6], mx.concatenate([x, y, x])) == 1 + 1 + 3


needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="MLX compiles chains with it on a CPU"
)


@needs_compiler
def test_the_baseline_computes_the_same(bench: ModuleType) -> None:
    """Else its count and its time would mean nothing."""
    voxtral = bench.small_voxtral()
    voxtral.set_dtype(mx.float32)
    plain, state = PlainVoxtral(voxtral), voxtral.decoder_state(6, 1)
    encoder = voxtral.encoder_state(4)
    for step in range(5):
        audio, token = mx.random.normal((1, 64)), mx.array([step])
        truth = greedy(voxtral.decode([DecoderRows(audio, token, state)]))[1]
        token, logprobs = plain.decode(audio, token)
        assert mx.allclose(mx.exp(logprobs.max()), truth, rtol=1e-4)
        mel = mx.random.normal((8, 128))
        x = plain.stem(mel[None])
        for layer, cache in zip(voxtral.encoder.layers, plain.encoder_caches, strict=True):
            x = plain.encoder_layer(layer, x, cache)
        stem = voxtral.encoder.stem(mel[None], [encoder])
        truth = voxtral.encoder.transform([stem], [encoder])
        assert mx.allclose(voxtral.encoder.norm(x), truth, rtol=1e-3, atol=1e-4)


@needs_compiler
def test_the_baseline_of_qwen3_asr_computes_the_same(qwen_folder: Path) -> None:
    """Over a prompt, and token by token."""
    mx.random.seed(1)
    model = load_qwen3_asr(qwen_folder, mx.float32)
    plain, state = PlainQwen3ASR(model), model.decoder_state()
    for length in (7, 1, 1, 5, 1):
        x = mx.random.normal((length, model.args.text.dim))
        token, probability = greedy(model.decode([QwenRows([x], state)])[0])
        same, logprobs = plain.decode(x[None])
        assert token.item() == same.item()
        # The packed head rounds its input to 15 bits: 0.3 % at most in 200 draws.
        assert mx.allclose(mx.exp(logprobs.max()), probability, rtol=1e-2)


@needs_compiler
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_fused_chains_compute_what_their_ops_do(dtype: mx.Dtype) -> None:
    x = mx.random.normal((2, 5, 6, 64)).astype(dtype)
    rotary = ops.rotary_tables(10**9, 5, 64, 1e6)
    calls: list[Callable[[], Any]] = [
        lambda: ops.rotate(x, rotary),
        lambda: ops.rotate(x[:, ::3, :2], tuple(t[:, :1] for t in rotary), traditional=False),
        lambda: ops.gelu(x),
        lambda: ops.swiglu(x, x + 1),
        lambda: ops.greedy(mx.where(x > 2, mx.nan, x)),
        lambda: ops.log_mel(x.flatten(), log_floor=-1.0, shift=4.0, scale=0.25),
    ]
    for call in calls:
        with ops.use_native(False):
            alone = call()
            before = _ext.set_gpu_graphs(True)
            try:
                fused = call()
            finally:
                _ext.set_gpu_graphs(before)
        alone, fused = (found if isinstance(found, tuple) else (found,) for found in (alone, fused))
        for a, b in zip(alone, fused, strict=True):
            assert mx.allclose(a, b, rtol=1e-6, atol=1e-6, equal_nan=True)


def test_compositions_need_no_compiler_on_a_cpu(tmp_path: Path) -> None:
    """Not even one that is there: users of a wheel have none."""
    program = (
        "import mlx.core as mx; mx.set_default_device(mx.cpu)\n"
        "from voxfast.bench.op_parity import op_errors; print(max(op_errors().values()) < 1e-3)"
    )
    environment = {**os.environ, "VOXFAST_NATIVE": "0", "PATH": "", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_to_be_counted_is_not_evaluated(bench: ModuleType) -> None:
    with bench.gpu_graphs():
        x = mx.fast.rms_norm(ops.gelu(mx.ones((4, 6))), mx.ones(6), 1e-5)
    with pytest.raises(RuntimeError, match="counted"):
        mx.eval(x)
    assert mx.fast.rms_norm(mx.ones((1, 6)), mx.ones(6), 1e-5).shape == (1, 6)
