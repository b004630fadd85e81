"""The microphone, and the pace of speech."""

import json
import os
import re
import signal
import sys
import types

import numpy as np
import pytest
from command_line import WORDS, Terminal

from voxfast import cli
from voxfast.cli import listen
from voxfast.cli.run import Pace
from voxfast.timed import Word


class PortAudioError(Exception):
    pass


class FakeMicrophone(types.ModuleType):
    """A stand-in for sounddevice that records a second of silence, or a sound, and then Ctrl-C."""

    PortAudioError = PortAudioError

    def __init__(
        self,
        *,
        rates: tuple[int, ...] = (16000,),
        inputs: int = 1,
        sound: np.ndarray | None = None,
    ) -> None:
        super().__init__("sounddevice")
        self.rates, self.inputs, self.sound = rates, inputs, sound
        self.opened: dict[str, object] = {}

    def query_devices(self, device: object = None, kind: str | None = None) -> object:
        info = {"name": "Mic", "default_samplerate": 48000.0, "max_input_channels": 1}
        if kind is None:
            return [{**info, "name": "Speaker", "max_input_channels": 0}, *[info] * self.inputs]
        if device not in (None, 1, "Mic"):
            raise ValueError(f"No input device matching {device!r}")
        return info

    def check_input_settings(self, *, device: object, channels: int, samplerate: float) -> None:
        if samplerate not in self.rates:
            raise PortAudioError("Invalid sample rate")

    def InputStream(self, **options: object) -> "FakeMicrophone":
        self.opened = options
        return self

    def __enter__(self) -> None:
        rate, size = self.opened["samplerate"], self.opened["blocksize"]
        sound = np.zeros(round(rate)) if self.sound is None else self.sound
        for i in range(len(sound) // size):
            block = sound[i * size : (i + 1) * size, None].astype(np.float32)
            status = types.SimpleNamespace(input_overflow=self.sound is None and i == 3)
            self.opened["callback"](block, size, None, status)
        os.kill(os.getpid(), signal.SIGINT)

    def __exit__(self, *exception: object) -> None:
        pass


@pytest.mark.parametrize("rates", [(16000,), (48000,)])
def test_listen(model, monkeypatch, capsys, rates):
    microphone = FakeMicrophone(rates=rates)
    monkeypatch.setitem(sys.modules, "sounddevice", microphone)
    before = signal.getsignal(signal.SIGINT)
    assert cli.main(["listen", "--device", "1", "--chunk-ms", "100"]) == 0
    out, err = capsys.readouterr()
    assert out == "w1 w2 end\n"
    assert "listening; Ctrl-C ends" in err
    assert "lost some audio" in err
    assert sum(model.sessions[0].chunks) == 16000
    assert microphone.opened["samplerate"] == rates[0]
    assert microphone.opened["device"] == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_listen_to_a_file(model, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sounddevice", FakeMicrophone())
    assert cli.main(["listen", "--chunk-ms", "100", "-f", "json", "-o", "out.json"]) == 0
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["text"] == "w1 w2 end"
    assert document["complete"] is True


def test_slow_recognition_is_said_once(model, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sounddevice", FakeMicrophone())
    monkeypatch.setattr(listen, "_BEHIND_SECONDS", 0.5)
    assert cli.main(["listen", "--chunk-ms", "100"]) == 0
    assert capsys.readouterr().err.count("behind the microphone") == 1


def test_microphones(model, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sounddevice", FakeMicrophone())
    assert cli.main(["listen", "--list-devices"]) == 0
    assert capsys.readouterr().out == "  1  Mic  (48000 Hz)\n"
    assert cli.main(["listen", "--device", "nope"]) == 1
    assert "--list-devices" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "sounddevice", FakeMicrophone(inputs=0))
    assert cli.main(["listen"]) == 1
    assert "there is no microphone" in capsys.readouterr().err
    assert cli.main(["listen", "--list-devices"]) == 1
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert cli.main(["listen"]) == 1
    assert "pip install 'voxfast[microphone]'" in capsys.readouterr().err
    assert model.loads == []


# The level


def noise(seconds: float, level_db: float = -40.0, offset: float = 0.0) -> np.ndarray:
    """Noise with such a peak."""
    draw = np.random.default_rng(0).uniform(-1, 1, round(16000 * seconds))
    return 10 ** (level_db / 20) * draw + offset


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(16000 * seconds))


def overdriven(seconds: float, gain: float) -> np.ndarray:
    """A tone of 100 Hz; what is above 1 is cut off."""
    times = np.arange(round(16000 * seconds)) / 16000
    return np.clip(gain * np.sin(2 * np.pi * 100 * times), -1, 1)


def listen_to(monkeypatch, sound: np.ndarray, *options: str) -> None:
    """Listen to a sound that is there at once, which is not to count as being behind."""
    monkeypatch.setattr(listen, "_BEHIND_SECONDS", np.inf)
    monkeypatch.setitem(sys.modules, "sounddevice", FakeMicrophone(sound=sound))
    assert cli.main(["listen", "--chunk-ms", "100", *options]) == 0


@pytest.mark.parametrize(
    ("parts", "times"),
    [
        pytest.param([silence(12)], 1, id="muted"),
        pytest.param([noise(12, -76)], 1, id="only the noise of a converter"),
        pytest.param([noise(12, -76, offset=0.01)], 1, id="muted, with a constant offset"),
        pytest.param([noise(12, -60)], 0, id="a quiet room"),
        pytest.param([silence(4), noise(1), silence(4), noise(1)], 0, id="pauses"),
        pytest.param([silence(7), noise(1), silence(7), noise(1)], 2, id="muted twice"),
    ],
)
def test_a_microphone_that_hears_nothing(model, monkeypatch, capsys, parts, times):
    listen_to(monkeypatch, np.concatenate(parts))
    err = capsys.readouterr().err
    message = (
        "voxfast: warning: Mic hears nothing: is the microphone muted, or another one wanted? "
        "see --list-devices\n"
    )
    assert err.count(message) == err.count("hears nothing") == times


def test_the_time_of_silence_at_another_rate(model, monkeypatch, capsys):
    microphone = FakeMicrophone(rates=(48000,), sound=np.zeros(4 * 48000))
    monkeypatch.setitem(sys.modules, "sounddevice", microphone)
    assert cli.main(["listen", "--chunk-ms", "100"]) == 0
    assert "hears nothing" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("parts", "times"),
    [
        pytest.param([overdriven(5, 2.0)], 1, id="always"),
        pytest.param([noise(3), overdriven(1, 2.0), noise(3), overdriven(1, 2.0)], 1, id="twice"),
        pytest.param([overdriven(5, 0.99)], 0, id="loud"),
        pytest.param([np.concatenate([noise(0.1), np.ones(4)] * 20)], 0, id="single clicks"),
    ],
)
def test_a_microphone_that_clips(model, monkeypatch, capsys, parts, times):
    listen_to(monkeypatch, np.concatenate(parts))
    assert capsys.readouterr().err.count("voxfast: warning: Mic clips: ") == times


def test_no_meter_without_a_terminal(model, monkeypatch, capsys):
    listen_to(monkeypatch, silence(7))
    out, err = capsys.readouterr()
    assert "dBFS" not in err
    assert "\x1b" not in out + err
    assert "hears nothing" in err


def test_quiet_on_a_terminal(model, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    listen_to(monkeypatch, np.concatenate([silence(7), overdriven(2, 2.0)]), "--quiet")
    lines = terminal.getvalue().splitlines()
    assert [" ".join(line.split()[:4]) for line in lines] == [
        "voxfast: warning: Mic hears",
        "voxfast: warning: Mic clips:",
    ]


def test_what_to_say_to_a_demonstration(model, monkeypatch, capsys, eval_items):
    listen_to(monkeypatch, silence(1))
    examples = re.findall('"(.+?)"', capsys.readouterr().err)
    assert len(examples) == 2
    known = {word.text for item in eval_items for word in item.words}
    assert set(" ".join(examples).split()) <= known
    model.is_demo = False
    listen_to(monkeypatch, silence(1))
    assert "try saying" not in capsys.readouterr().err


# Pace


class Clock:
    """A clock that only sleeping and working move."""

    def __init__(self) -> None:
        self.time = 100.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.time += seconds


def test_pace_of_a_file():
    clock = Clock()
    pace = Pace(now=clock.now, sleep=clock.sleep)
    for i in range(4):
        pace.before(0.5)
        clock.time += 0.2
        # The word that ends at i/2 s is committed half a second and the work later.
        pace.after([Word(" w", 0, i / 2)])
    pace.after([])
    # The first block is there when it would have been spoken; work counts as waiting.
    assert clock.slept == [0.5, 0.3, 0.3, 0.3]
    assert pace.report() == (
        "4 words, lag median 0.70 s, 95 % 0.70 s, longest 0.70 s; "
        "real-time factor 0.400 (0.80 s for 2.00 s)"
    )


def test_pace_that_cannot_be_kept():
    clock = Clock()
    pace = Pace(now=clock.now, sleep=clock.sleep)
    for i in range(4):
        pace.before(0.5)
        clock.time += 1.0
        pace.after([Word(" w", 0, (i + 1) / 2)])
    assert clock.slept == [0.5]
    assert "median 1.75 s, 95 % 2.42 s, longest 2.50 s; real-time factor 2.000" in pace.report()


def test_pace_of_a_live_stream():
    clock = Clock()
    pace = Pace(live=True, now=clock.now, sleep=clock.sleep)
    for _ in range(2):
        pace.before(0.5)
        clock.time += 0.5
    assert clock.slept == []
    assert pace.report() == "no words; real-time factor 0.000 (0.00 s for 1.00 s)"


def test_realtime_report(model, talk, monkeypatch, capsys):
    slept: list[float] = []
    monkeypatch.setitem(Pace.__init__.__kwdefaults__, "sleep", slept.append)
    assert cli.main(["transcribe", talk, "--realtime", "-q"]) == 0
    out, err = capsys.readouterr()
    assert out == WORDS + "\n"
    assert err.startswith("voxfast: talk.wav: 4 words, lag median ")
    assert "for 1.60 s)" in err
    assert len(slept) == 20
