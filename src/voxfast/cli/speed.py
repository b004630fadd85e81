"""``voxfast doctor --speed``: is this machine fast enough, and does it compute what it should?"""

import argparse
import json
import math
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxfast import hub
from voxfast._version import version
from voxfast.cli import options
from voxfast.cli.console import UsageError, describe, note, say
from voxfast.errors import VoxfastError

if TYPE_CHECKING:
    import mlx.core as mx

DEVICES = ("cpu", "gpu")
# Names, and the gigabytes of the weights. (The table of builders is in voxfast.bench.speed, which
# imports MLX.)
SIZES = {
    "voxtral-4b-4bit": 2.5,
    "voxtral-4b-8bit": 4.7,
    "voxtral-4b-bfloat16": 8.9,
    "qwen3-asr-0.6b-4bit": 0.5,
    "qwen3-asr-0.6b-bfloat16": 1.6,
    "qwen3-asr-1.7b-4bit": 1.2,
    "qwen3-asr-1.7b-bfloat16": 4.1,
}
DEFAULT = ("voxtral-4b-4bit", "qwen3-asr-0.6b-4bit")
SPARE = 1.0  # gigabytes beyond the weights: caches, activations, the system
LARGEST = 1.0  # gigabytes of a checkpoint that is computed in float32, to compare its tokens
# What an op's error in float32 may be, relative to max(1, |truth|). On CPUs, products with packed
# weights have inputs of 15 bits; GPUs may multiply float32 in 10 (TF32).
LIMITS = {"cpu": 1e-3, "gpu": 1e-2}

Report = dict[str, Any]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the measurement."""
    group = parser.add_argument_group("speed")
    group.add_argument(
        "--speed",
        action="store_true",
        help="measure this machine instead: every op against float64, tokens against the CPU's, "
        "and the time of both models at full size with random weights, on CPU and GPU",
    )
    group.add_argument(
        "--measure",
        nargs="+",
        choices=SIZES,
        metavar="NAME",
        help=f"which of {', '.join(SIZES)} (default: {' '.join(DEFAULT)})",
    )
    group.add_argument(
        "--model",
        action="append",
        metavar="NAME",
        help="a model that is measured, too, with its own weights; may be repeated",
    )
    group.add_argument(
        "--device", choices=DEVICES, action="append", help="default: all that there are"
    )
    group.add_argument(
        "--seconds",
        type=options.in_range(1, 3600),
        metavar="S",
        help="how long each step is repeated (default: 4)",
    )
    group.add_argument(
        "--json",
        metavar="FILE",
        help="write the numbers there, to paste into an issue; -: stdout, and the report to stderr "
        "(default: stdout, at the end)",
    )


def check(args: argparse.Namespace) -> None:
    """Refuse options of the measurement without ``--speed``.

    Raises:
        UsageError: if there are any.
    """
    for name in ("measure", "model", "device", "seconds", "json"):
        if getattr(args, name) is not None and not args.speed:
            raise UsageError(f"--{name} is for --speed")


def run(args: argparse.Namespace) -> int:
    """Measure; returns 0 if all results are right, else 1."""
    write = note if args.json == "-" else lambda line: say(f"{line}\n")
    folders = {name: hub.resolve(name) for name in args.model or ()}
    if args.json not in (None, "-") and not Path(args.json).parent.is_dir():
        raise UsageError(f"--json {args.json}: there is no such folder")
    report: Report = _machine()
    failed = False
    for name in args.device or DEVICES:
        missing = _missing(name)
        if missing:
            write(f"{name:<24}{missing}")
            report["devices"][name] = {"missing": missing}
            failed |= args.device is not None
            continue
        found: Report = {}
        report["devices"][name] = found
        for line in _measure(name, args, folders, found):
            write(line)
        failed |= bool(found["failed"])
    text = json.dumps(report, indent=1)
    if args.json in (None, "-"):
        say(f"{text}\n")
    else:
        Path(args.json).write_text(f"{text}\n", "utf-8")
    return 1 if failed else 0


def _machine() -> Report:
    from voxfast._native import _ext

    return {
        "voxfast": version(),
        "mlx": metadata.version("mlx"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "kernels": _ext.isa(),
        "threads": _ext.num_threads(),
        "devices": {},
    }


def _missing(name: str) -> str:
    """Why a device cannot be measured; empty if it can."""
    import mlx.core as mx

    if mx.is_available(getattr(mx, name)):
        return ""
    return f"not available: this MLX ({metadata.version('mlx')}) finds no {name.upper()}"


def _memory(name: str) -> float:
    """Gigabytes that a device has."""
    import mlx.core as mx

    if name == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    info = mx.device_info(mx.Device(getattr(mx, name)))
    keys = ("max_recommended_working_set_size", "free_memory", "total_memory", "memory_size")
    return float(next((info[key] for key in keys if info.get(key)), 0)) / 1e9


@contextmanager
def _on(name: str) -> Iterator["mx.Device"]:
    """Inside, the device is MLX's default."""
    import mlx.core as mx

    before = mx.default_device()
    mx.set_default_device(mx.Device(getattr(mx, name)))
    try:
        yield mx.default_device()
    finally:
        mx.set_default_device(before)


def _measure(
    name: str, args: argparse.Namespace, folders: dict[str, Path], found: Report
) -> Iterator[str]:
    """Measure a device: fills ``found``, yields the lines of the report."""
    import mlx.core as mx

    found |= {"failed": [], "ops": {}, "tokens": {}, "models": {}}
    with _on(name) as device:
        found["name"] = str(mx.device_info(device).get("device_name", "unnamed"))
        found["memory_gb"] = round(_memory(name), 1)
        yield f"{name:<24}{found['name']}, {found['memory_gb']} GB"
        yield _check_ops(name, found)
        if name != "cpu":
            for model, folder in {**hub.embedded_models(), **folders}.items():
                if _gigabytes(folder) < LARGEST:
                    yield _check_tokens(model, folder, device, found)
        for model in [*(args.measure or ([] if folders else DEFAULT)), *folders]:
            try:
                yield _time(model, folders.get(model), name, args.seconds or 4, found)
            except (RuntimeError, MemoryError, VoxfastError) as error:
                if args.debug:
                    raise
                found["failed"].append(model)
                yield f"  {model:<22}FAILED: {describe(error)}"
            mx.clear_cache()


def _check_ops(name: str, found: Report) -> str:
    from voxfast.bench.op_parity import op_errors

    errors = {op: float(f"{error:.1e}") for op, error in op_errors().items()}
    # JSON has no NaN.
    found["ops"] = {op: error if math.isfinite(error) else None for op, error in errors.items()}
    wrong = {op: error for op, error in errors.items() if not error <= LIMITS[name]}
    if wrong:
        found["failed"].append("ops")
        listed = ", ".join(f"{op} {error:.0e}" for op, error in wrong.items())
        return f"  {'ops':<22}WRONG, by float64: {listed}"
    worst = max(errors, key=lambda op: errors[op])
    return f"  {'ops':<22}agree with float64 to {errors[worst]:.0e} ({worst}): OK"


def _gigabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e9


def _check_tokens(model: str, folder: Path, device: "mx.Device", found: Report) -> str:
    from voxfast.bench.speed import same_tokens

    difference = same_tokens(folder, device)
    found["tokens"][model] = difference or "equal"
    if difference:
        found["failed"].append(f"tokens of {model}")
        return f"  {model:<22}float32 tokens DIFFER: {difference}"
    return f"  {model:<22}float32 tokens as on the CPU: OK"


def _time(model: str, folder: Path | None, device: str, seconds: float, found: Report) -> str:
    """One model on one device: a line of the report."""
    from voxfast.bench.speed import RANDOM_MODELS, load_network, time_network

    memory, needed = _memory(device), SIZES.get(model, 0.0) + SPARE
    if folder is None and 0 < memory < needed:
        found["models"][model] = {"missing": f"{needed:.1f} GB"}
        return f"  {model:<22}left out: it needs {needed:.1f} GB, and there are {memory:.1f} GB"
    network = load_network(folder) if folder is not None else RANDOM_MODELS[model]()
    times = time_network(network, seconds, baseline=device != "cpu")
    found["models"][model] = {key: round(value, 3) for key, value in times.items()}
    if "position_ms" in times:
        line = f"a position (80 ms of audio) takes {times['position_ms']:.1f} ms"
    else:
        line = (
            f"a token takes {times['token_ms']:.1f} ms, "
            f"a second of a stream {times['second_ms']:.0f} ms"
        )
    if "plain_ms" in times:
        line += f" ({times['plain_ms']:.1f} ms as mlx-lm writes models)"
    return f"  {model:<22}{line}: {_verdict(times['real_time_factor'])}"


def _verdict(factor: float) -> str:
    """What a real-time factor means."""
    text = f"real-time factor {factor:.2f}, "
    if factor < 0.5:
        return text + f"room for about {int(0.9 / factor)} live streams"
    if factor < 0.9:
        return text + "one live stream"
    return text + "too slow for live speech; files take longer than they last"
