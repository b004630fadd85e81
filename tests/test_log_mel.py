"""log_mel against float64 NumPy, and its kernel against its composition."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import numpy as np
import pytest
import soundfile
from log_mel_reference import COMPOSED_ATOL, NORMALISED, SPEECH, log_mel_float64, noise

from voxfast import _native
from voxfast.ops import log_mel, use_native

ATOL = 2e-6  # in log10 units: float32's rounding of numbers up to 10
NORMALISED_ATOL = 5e-7
DTYPES = [mx.float32, mx.float16, mx.bfloat16]


@pytest.fixture(scope="module", autouse=True)
def _native_kernels():
    with use_native(True):
        yield


def compute(samples, **options):
    x = samples if isinstance(samples, mx.array) else mx.array(samples)
    return np.array(log_mel(x, stream=mx.cpu, **options))


@pytest.mark.parametrize("path", SPEECH, ids=lambda path: path.stem)
def test_speech_is_exact(path):
    samples, _ = soundfile.read(path, dtype="float32")
    expected = log_mel_float64(samples, **NORMALISED)
    np.testing.assert_allclose(
        compute(samples, **NORMALISED), expected, rtol=0, atol=NORMALISED_ATOL
    )
    with use_native(False):
        composed = compute(samples, **NORMALISED)
    np.testing.assert_allclose(composed, expected, rtol=0, atol=COMPOSED_ATOL)


def test_there_are_four_clips_of_speech():
    assert len(SPEECH) == 4


def test_use_native_chooses_between_kernel_and_composition():
    samples = noise(4000)
    with use_native(False):
        composed = compute(samples)
    assert not np.array_equal(compute(samples), composed)
    np.testing.assert_allclose(compute(samples), composed, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "length", [400, 401, 559, 560, 561, 719, 720, 1279, 1280, 1681, 2897, 16000]
)
def test_lengths_and_dtypes(length, dtype):
    x = mx.array(noise(length)).astype(dtype)
    out = log_mel(x, stream=mx.cpu)
    assert out.dtype == mx.float32
    assert out.shape == ((length - 400) // 160 + 1, 128)
    expected = log_mel_float64(np.array(x.astype(mx.float32)))
    np.testing.assert_allclose(np.array(out), expected, rtol=0, atol=ATOL)


def test_half_a_minute():
    samples = noise(480_000)
    np.testing.assert_allclose(compute(samples), log_mel_float64(samples), rtol=0, atol=ATOL)


@pytest.mark.parametrize("n_mels", [1, 2, 3, 17, 80, 127, 128, 512])
def test_n_mels(n_mels):
    samples = noise(3000)
    expected = log_mel_float64(samples, n_mels)
    np.testing.assert_allclose(compute(samples, n_mels=n_mels), expected, rtol=0, atol=ATOL)
    with use_native(False):
        composed = compute(samples, n_mels=n_mels)
    np.testing.assert_allclose(composed, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 400), (3, 700), (17, 400), (2, 3, 1000), (5, 1, 2, 881)])
def test_every_row_of_a_batch_is_as_if_alone(shape):
    samples = noise(*shape)
    out = compute(samples)
    assert out.shape == (*shape[:-1], (shape[-1] - 400) // 160 + 1, 128)
    for row in np.ndindex(*shape[:-1]):
        np.testing.assert_array_equal(out[row], compute(samples[row]))


def test_every_frame_is_as_if_alone():
    samples = noise(400 + 160 * 40)
    out = compute(samples)
    for t in range(41):
        alone = compute(samples[160 * t : 160 * t + 400])
        np.testing.assert_array_equal(out[t : t + 1], alone)


VIEWS = {
    "every third": lambda x: x[:, ::3],
    "reversed": lambda x: x[:, ::-1],
    "offset": lambda x: x[1:, 77:],
    "every second row": lambda x: x[::2],
    "rows reversed": lambda x: x[::-1],
    "transposed": lambda x: x.reshape(-1, 4).T,
    "swapped": lambda x: x.reshape(4, 2, -1).swapaxes(0, 1),
    "broadcast": lambda x: mx.broadcast_to(x[:1], (3, x.shape[1])),
    "constant": lambda x: mx.broadcast_to(x[:, 9:10], (x.shape[0], 500)),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("view", VIEWS)
def test_views(view, dtype):
    x = VIEWS[view](mx.array(noise(4, 2000)).astype(dtype))
    expected = compute(mx.contiguous(x))
    np.testing.assert_array_equal(compute(x), expected)
    float32 = np.array(x.astype(mx.float32))
    np.testing.assert_allclose(expected, log_mel_float64(float32), rtol=0, atol=ATOL)


@pytest.mark.parametrize("log_floor", [None, -12.0, -6.5, 0.0, 3.0])
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (4.0, 0.25), (-1.5, -2.0), (1.0, 0.0)])
def test_clamp_shift_and_scale(log_floor, shift, scale):
    samples = noise(2000)
    samples[800:] = 0
    out = compute(samples, log_floor=log_floor, shift=shift, scale=scale)
    floor = -np.inf if log_floor is None else log_floor
    expected = log_mel_float64(samples, 128, floor, shift, scale)
    np.testing.assert_allclose(out, expected, rtol=0, atol=2 * ATOL)


@pytest.mark.parametrize("n_mels", [128, 512])
@pytest.mark.parametrize("level", [0.0, 1e-20, 1e-30, 1e-42])
def test_silence_is_exactly_the_least_value(level, n_mels):
    samples = noise(1000) * np.float32(level)
    assert np.all(compute(samples, n_mels=n_mels) == np.float32(np.log10(1e-10)))
    assert np.all(compute(samples, n_mels=n_mels, **NORMALISED) == np.float32(-0.625))


@pytest.mark.parametrize("level", [1e4, 1e12, 1e17])
def test_loud(level):
    samples = noise(1000) * np.float32(level)
    np.testing.assert_allclose(compute(samples), log_mel_float64(samples), rtol=3e-7, atol=ATOL)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_sample_spoils_its_own_frames_only(bad):
    samples = noise(400 + 160 * 20)
    good = compute(samples)
    samples[1650] = bad
    out = compute(samples)
    hit = [t for t in range(21) if 160 * t <= 1650 < 160 * t + 400]
    assert not np.isfinite(out[hit]).any()
    rest = np.delete(np.arange(21), hit)
    np.testing.assert_array_equal(out[rest], good[rest])


def test_a_pure_tone_is_where_it_belongs():
    tone = np.sin(2 * np.pi * 1000 / 16000 * np.arange(4000)).astype(np.float32)
    # 1000 Hz is mel 15 of 45.25; filter m is centred at (m + 1) / 129 of the scale.
    assert set(compute(tone).argmax(axis=1)) == {round(15 / 45.245 * 129) - 1}


ISA_SCRIPT = """
import sys
import mlx.core as mx
import numpy as np
from voxfast import _native
from voxfast.ops import log_mel
samples = np.load(sys.argv[1])
assert _native._ext.isa() == sys.argv[3]
whole = np.array(log_mel(mx.array(samples), stream=mx.cpu))
for t in range(0, len(whole), 37):
    frame = mx.array(samples[160 * t : 160 * t + 560])
    assert np.array_equal(np.array(log_mel(frame, stream=mx.cpu)), whole[t : t + 2])
np.save(sys.argv[2], whole)
"""


@pytest.mark.parametrize("isa", _native._ext.available_isas())
def test_every_instruction_set(isa, tmp_path):
    samples, _ = soundfile.read(SPEECH[0], dtype="float32")
    np.save(tmp_path / "samples.npy", samples)
    arguments = [str(tmp_path / "samples.npy"), str(tmp_path / "out.npy"), isa]
    subprocess.run(
        [sys.executable, "-c", ISA_SCRIPT, *arguments],
        env=os.environ | {"VOXFAST_ISA": isa, "VOXFAST_NATIVE": "1"},
        check=True,
    )
    out = np.load(tmp_path / "out.npy")
    np.testing.assert_allclose(out, log_mel_float64(samples), rtol=0, atol=ATOL)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        (mx.zeros((400,), mx.int16), {}, r"float32, float16 or bfloat16.*\(400\).*int16"),
        (mx.zeros((2, 399)), {}, r"at least 400.*\(2,399\).*float32"),
        (mx.zeros((0, 400)), {}, r"at least 400.*\(0,400\)"),
        (mx.array(1.0), {}, r"\[\.\.\., N\].*\(\).*float32"),
        (mx.zeros((400,)), {"n_mels": 0}, "1 ... 512; got 0"),
        (mx.zeros((400,)), {"n_mels": 513}, "1 ... 512; got 513"),
        (mx.zeros((400,)), {"log_floor": float("nan")}, "must be numbers; got nan"),
        (mx.zeros((400,)), {"shift": float("inf")}, "must be numbers.*inf"),
        (mx.zeros((400,)), {"scale": float("nan")}, "must be numbers.*nan"),
    ],
)
def test_rejections(samples, options, message, native):
    with use_native(native), pytest.raises(ValueError, match=r"^\[log_mel\] .*" + message):
        log_mel(samples, stream=mx.cpu, **options)


@pytest.mark.parametrize("shapeless", [False, True])
def test_compile(shapeless):
    compiled = mx.compile(
        lambda x: log_mel(x * 2.0, n_mels=80, stream=mx.cpu) + 1.0, shapeless=shapeless
    )
    for length in (400, 1000, 1000, 16000):
        samples = noise(length)
        expected = compute(samples * 2, n_mels=80) + 1
        np.testing.assert_array_equal(np.array(compiled(mx.array(samples))), expected)


def test_compile_keeps_different_options_apart():
    samples = noise(1000)

    @mx.compile
    def differences(x):
        plain = log_mel(x, stream=mx.cpu)
        shifted = log_mel(x, shift=1.0, stream=mx.cpu)
        return shifted - plain, shifted - log_mel(x, shift=1.0, stream=mx.cpu)

    shift, nothing = differences(mx.array(samples))
    np.testing.assert_allclose(np.array(shift), 1, atol=2e-6)
    assert np.all(np.array(nothing) == 0)


def test_async_eval_back_to_back():
    chunks = [noise(1520, seed=seed) for seed in range(30)]
    results = []
    for chunk in chunks:
        results.append(log_mel(mx.array(chunk), stream=mx.cpu))
        mx.async_eval(results[-1])
    for chunk, result in zip(chunks, results, strict=True):
        np.testing.assert_array_equal(np.array(result), compute(chunk))


def test_inputs_outlive_the_caller():
    results = [log_mel(mx.array(noise(16000, seed=s)) * 1.0, stream=mx.cpu) for s in range(10)]
    mx.eval(results)
    for seed, result in enumerate(results):
        np.testing.assert_array_equal(np.array(result), compute(noise(16000, seed=seed)))


def test_two_threads_at_once():
    long, short = noise(200_000), noise(1520)  # the long one goes to the thread pool
    expected = {200_000: compute(long), 1520: compute(short)}

    def work(samples):
        stream = mx.new_stream(mx.cpu)
        for _ in range(20):
            out = log_mel(mx.array(samples), stream=stream)
            if not np.array_equal(np.array(out), expected[len(samples)]):
                return False
        return True

    with ThreadPoolExecutor(4) as executor:
        assert all(executor.map(work, [long, short, long, short]))


@pytest.mark.skipif(not mx.is_available(mx.gpu), reason="no GPU")
def test_gpu_is_the_composition():
    samples = noise(16000)
    out = np.array(log_mel(mx.array(samples), stream=mx.gpu, **NORMALISED))
    expected = log_mel_float64(samples, **NORMALISED)
    np.testing.assert_allclose(out, expected, rtol=0, atol=COMPOSED_ATOL)
