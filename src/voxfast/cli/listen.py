"""``voxfast listen``: the microphone to text."""

import argparse
import contextlib
import queue
import signal
import sys
from collections.abc import Generator, Iterator
from types import FrameType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from voxfast.audio import SAMPLE_RATE, Resampler
from voxfast.cli import options
from voxfast.cli.console import note, say
from voxfast.cli.level import Level, Meter, OutputAboveMeter
from voxfast.cli.output import Output, chosen_format, plan
from voxfast.cli.run import run_session
from voxfast.errors import AudioFileError

_BEHIND_SECONDS = 3.0
# Every demonstration is made by tools/train, whose grammar has such sentences.
_DEMO_EXAMPLES = ("turn left forty two metres", "please open red door")

Block = npt.NDArray[np.float32]


class _Microphone(NamedTuple):
    """A device to record with.

    Attributes:
        device: its number, or part of its name; None: the system's choice.
        name: for people.
        rate: to record at, in Hz.
    """

    device: int | str | None
    name: str
    rate: float


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "listen",
        help="transcribe the microphone",
        description="Print words as they are spoken; Ctrl-C ends.",
    )
    parser.add_argument("--list-devices", action="store_true", help="show microphones, and end")
    parser.add_argument("--device", metavar="NAME", help="number or part of the name")
    options.add_kv_bits(options.add_model(parser))
    options.add_output(parser, several=False)
    options.add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Transcribe until Ctrl-C; returns the exit code."""
    sounddevice = load_sounddevice()
    if args.list_devices:
        return _list_devices(sounddevice)
    device = int(args.device) if args.device and args.device.isdecimal() else args.device
    microphone = _choose(sounddevice, device)
    format_, overwrite = chosen_format(args.format, args.output), not args.no_overwrite
    (path,) = plan(["microphone"], args.output, format_, overwrite=overwrite)
    meter = Meter(is_shown=sys.stderr.isatty() and not args.quiet)
    with contextlib.closing(options.load_model(args)) as model:
        if model.is_demo and not args.quiet:
            examples = " or ".join(f'"{example}"' for example in _DEMO_EXAMPLES)
            note(f"voxfast: try saying {examples}")
        if path is None and sys.stdout.isatty():
            output: Output = OutputAboveMeter(format_, "microphone", meter)
        else:
            output = Output(format_, path, "microphone", overwrite=overwrite)
        with contextlib.closing(_record(sounddevice, microphone, args, meter)) as blocks:
            try:
                run_session(model, blocks, output, args)
            finally:
                output.discard()
    return 0


def load_sounddevice() -> ModuleType:
    """The optional module that records."""
    try:
        import sounddevice
    except ImportError:
        raise ImportError(
            "the microphone needs an extra: python -m pip install 'voxfast[microphone]'"
        ) from None
    except OSError as error:
        raise ImportError(
            f"the microphone needs the PortAudio library ({error}); on Debian and Ubuntu: "
            f"apt install libportaudio2"
        ) from None
    module: ModuleType = sounddevice
    return module


def _inputs(sounddevice: ModuleType) -> dict[int, dict[str, Any]]:
    """Devices that can record, by number."""
    devices = enumerate(sounddevice.query_devices())
    return {number: info for number, info in devices if info["max_input_channels"] > 0}


def _list_devices(sounddevice: ModuleType) -> int:
    """Print the microphones."""
    inputs = _inputs(sounddevice)
    for number, info in inputs.items():
        say(f"{number:3d}  {info['name']}  ({info['default_samplerate']:.0f} Hz)\n")
    if not inputs:
        note("voxfast: there is no microphone")
    return 0 if inputs else 1


def _choose(sounddevice: ModuleType, device: int | str | None) -> _Microphone:
    """The device that was asked for; it records at 16 kHz if it can, else at its own rate."""
    if not _inputs(sounddevice):
        raise AudioFileError("there is no microphone; see voxfast listen --list-devices")
    try:
        info = sounddevice.query_devices(device, "input")
    except (ValueError, sounddevice.PortAudioError) as error:
        raise AudioFileError(
            f"no microphone {device!r} ({error}); see voxfast listen --list-devices"
        ) from None
    try:
        sounddevice.check_input_settings(device=device, channels=1, samplerate=SAMPLE_RATE)
    except sounddevice.PortAudioError:
        return _Microphone(device, info["name"], float(info["default_samplerate"]))
    return _Microphone(device, info["name"], SAMPLE_RATE)


def _record(
    sounddevice: ModuleType, microphone: _Microphone, args: argparse.Namespace, meter: Meter
) -> Generator[Block, None, None]:
    """Blocks at 16 kHz until Ctrl-C; what was recorded before it is still yielded."""
    # SimpleQueue, because its put may be called in a signal handler.
    recorded: queue.SimpleQueue[Block | None] = queue.SimpleQueue()
    lost = 0

    def callback(samples: Block, frames: int, time: object, status: Any) -> None:
        nonlocal lost
        lost += bool(status.input_overflow)
        recorded.put(samples[:, 0].copy())

    rate = microphone.rate
    size = max(1, round(args.chunk_ms / 1000 * rate))
    resampler, level, told, noted = Resampler(rate), Level(rate), 0, False
    try:
        stream = sounddevice.InputStream(
            device=microphone.device,
            samplerate=rate,
            blocksize=size,
            channels=1,
            dtype="float32",
            callback=callback,
        )
        with _until_interrupt(recorded), stream:
            if not args.quiet:
                note("voxfast: listening; Ctrl-C ends")
            while (block := recorded.get()) is not None:
                for message in level.step(block):
                    meter.note(f"voxfast: warning: {microphone.name} {message}")
                meter.step(level, len(block) / rate)
                converted = resampler.step(block)
                if converted.size:
                    yield converted
                behind = recorded.qsize() * size / rate
                if behind > _BEHIND_SECONDS and not noted:
                    meter.note(
                        f"voxfast: warning: recognition is {behind:.0f} s behind the microphone"
                    )
                    noted = True
                elif behind < _BEHIND_SECONDS / 2:
                    noted = False
                if lost > told:
                    told = lost
                    meter.note("voxfast: warning: the microphone lost some audio")
        meter.hide()
        yield resampler.finish()
    except sounddevice.PortAudioError as error:
        raise AudioFileError(f"the microphone cannot be used: {error}") from None
    finally:
        meter.hide()


@contextlib.contextmanager
def _until_interrupt(recorded: "queue.SimpleQueue[Block | None]") -> Iterator[None]:
    """Let the first Ctrl-C end the recording in order; the second one interrupts."""

    def stop(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        recorded.put(None)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        # Unless somebody who came earlier has put back what was there before both.
        if signal.getsignal(signal.SIGINT) is stop:
            signal.signal(signal.SIGINT, before)
