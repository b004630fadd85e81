"""``voxfast doctor``: what is installed here, and whether it works."""

import argparse
import importlib
import platform
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import numpy as np

from voxfast._version import version
from voxfast.cli import options, speed
from voxfast.cli.console import describe, say
from voxfast.cli.listen import load_sounddevice
from voxfast.errors import ModelNotFoundError, VoxfastError

Lines = Iterator[str]


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "doctor",
        help="show what is installed, and test it",
        description="Show versions, kernels, devices and models, and run a self-test; or measure "
        "this machine.",
    )
    speed.add_options(parser)
    options.add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a report; returns 0 if all is well, else 1."""
    speed.check(args)
    if args.speed:
        return speed.run(args)
    failed = 0
    for title, check in _CHECKS.items():
        try:
            for line in check():
                say(f"{title:<12}{line}\n")
                title = ""
        except Exception as error:
            if args.debug:
                raise
            failed += 1
            say(f"{title:<12}FAILED: {describe(error)}\n")
    say(f"{failed} of {len(_CHECKS)} checks failed\n" if failed else "everything works\n")
    return 1 if failed else 0


def _versions() -> Lines:
    """voxfast, Python, the machine."""
    yield f"{version()} in {Path(__file__).parent.parent}"
    yield f"Python {platform.python_version()} ({sys.executable})"
    yield f"{platform.platform()}"


def _mlx() -> Lines:
    """MLX, and whether the extension fits it."""
    import mlx.core as mx

    yield f"{metadata.version('mlx')}, default device {mx.default_device()}"
    # Checks the version, and one array's way there and back (the nanobind pairing).
    native = importlib.import_module("voxfast._native")
    yield f"the extension was built for MLX {native.MLX_VERSION} and takes its arrays: OK"


def _kernels() -> Lines:
    """Instruction sets and threads."""
    from voxfast._native import _ext

    yield f"{_ext.isa()} (available: {', '.join(_ext.available_isas())})"
    yield f"{_ext.num_threads()} threads (VOXFAST_NUM_THREADS)"


def _devices() -> Lines:
    """What MLX can compute on."""
    import mlx.core as mx

    for kind in (mx.cpu, mx.gpu):
        if not mx.is_available(kind):
            yield f"{kind.name}: not available"
            continue
        for index in range(mx.device_count(kind)):
            name = mx.device_info(mx.Device(kind, index)).get("device_name", "unnamed")
            yield f"{kind.name} {index}: {name}"


def _audio() -> Lines:
    """Decoders and the microphone."""
    import av
    import soxr

    decoders = ("flac", "mp3", "aac", "opus", "vorbis", "alac")
    known = [name for name in decoders if name in av.codecs_available]
    yield f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info} ({', '.join(known)})"
    yield f"soxr {soxr.__version__}"
    try:
        sounddevice = load_sounddevice()
    except ImportError as error:
        yield str(error)
    else:
        inputs = sum(device["max_input_channels"] > 0 for device in sounddevice.query_devices())
        yield f"sounddevice {sounddevice.__version__}, {inputs} microphones"


def _models() -> Lines:
    """Where models are looked for, and which are there."""
    from huggingface_hub import constants

    from voxfast import hub

    yield f"embedded in {hub.CHECKPOINTS}: {', '.join(hub.embedded_models()) or 'none'}"
    found = [name for name, repository in hub.ALIASES.items() if hub.cached(repository)]
    yield f"downloaded to {constants.HF_HUB_CACHE}: {', '.join(found) or 'none'}"


def _ops() -> Lines:
    """The native kernels against MLX's own ops."""
    import mlx.core as mx

    from voxfast import ops

    samples = mx.array(np.random.default_rng(0).uniform(-0.1, 0.1, 16_000).astype(np.float32))
    frames = []
    for enabled in (True, False):
        with ops.use_native(enabled):
            frames.append(np.array(ops.log_mel(samples, stream=mx.Device(mx.cpu))))
    difference = float(np.abs(frames[0] - frames[1]).max())
    # Composed of MLX's ops the features are computed in float32 throughout.
    if not difference < 1e-2:
        raise VoxfastError(f"the native log-mel is off by {difference:.1e}")
    yield f"native kernels agree with MLX's ops to {difference:.0e}: OK"


def _transcription() -> Lines:
    """The embedded model on a second of silence."""
    import voxfast
    from voxfast import hub

    if not hub.embedded_models():
        raise ModelNotFoundError(f"no embedded model in {hub.CHECKPOINTS}; reinstall voxfast")
    begin = time.perf_counter()
    model = voxfast.load()
    loaded = time.perf_counter()
    try:
        with model.session() as session:
            words = [*session.feed(np.zeros(16_000, np.float32)), *session.finish()]
    finally:
        model.close()
    if words:
        raise VoxfastError(f"{model.name} hears words in silence: {words}")
    yield (
        f"{model.name} loaded in {loaded - begin:.2f} s, heard 1 s of silence in "
        f"{time.perf_counter() - loaded:.2f} s: OK"
    )


_CHECKS: dict[str, Callable[[], Lines]] = {
    "voxfast": _versions,
    "mlx": _mlx,
    "kernels": _kernels,
    "devices": _devices,
    "audio": _audio,
    "models": _models,
    "ops": _ops,
    "self-test": _transcription,
}
