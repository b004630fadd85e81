"""Fixtures for all tests: the embedded checkpoint, the recordings, what is known of them."""

import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from command_line import write
from evaluation import (
    QWEN_FOLDER,
    REAL_FOLDER,
    VOXTRAL_FOLDER,
    EvalItem,
    load_eval_items,
    load_voxtral_tokens,
)
from fakes import FakeModel
from hypothesis import HealthCheck, settings

import voxfast
from voxfast.models.qwen3_asr import passes


def pytest_configure() -> None:
    """Ctrl-C is heard, by child processes too: shells let background jobs ignore it.

    No property is timed, nor how fast its inputs are made: a machine may be busy.
    """
    unhurried = [HealthCheck.too_slow]
    settings.register_profile("unhurried", deadline=None, suppress_health_check=unhurried)
    settings.load_profile("unhurried")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # and so does nohup
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def on_the_cpu() -> Iterator[None]:
    """The CPU is MLX's default device, for tests of native kernels."""
    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    yield
    mx.set_default_device(before)


@pytest.fixture(scope="module")
def numbers() -> Iterator[voxfast.Model]:
    """voxtral-numbers in float32."""
    with voxfast.load(dtype=mx.float32) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def voxtral_folder() -> Path:
    """The checkpoint that ships with the package, original Mistral layout."""
    return VOXTRAL_FOLDER


@pytest.fixture(scope="session")
def qwen_folder() -> Path:
    """A small trained checkpoint in the layout of Qwen3-ASR."""
    return QWEN_FOLDER


@pytest.fixture(scope="session")
def real_folder() -> Path:
    """Real recordings, out of the vocabulary of the small checkpoints."""
    return REAL_FOLDER


@pytest.fixture(scope="session")
def eval_items() -> list[EvalItem]:
    """The 40 short clips, then the one of 180 s; audio is read when it is asked for."""
    return load_eval_items()


@pytest.fixture(scope="session")
def voxtral_tokens() -> dict[int, dict[str, list[int]]]:
    """Greedy tokens of voxtral-numbers by delay in positions (3, 6, 12) and clip name."""
    return load_voxtral_tokens()


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many utterances of Qwen3-ASR take part in each pass of the decoder, from now on."""
    found: list[int] = []
    decode = passes.decode

    def noting(decoders: Sequence[Any]) -> None:
        found.append(len(decoders))
        decode(decoders)

    monkeypatch.setattr(passes, "decode", noting)
    return found


@pytest.fixture
def model(monkeypatch, tmp_path) -> FakeModel:
    """The model that every command loads; the current folder is empty."""
    model = FakeModel()
    monkeypatch.setattr(voxfast, "load", model.load, raising=False)
    monkeypatch.chdir(tmp_path)
    return model


@pytest.fixture
def talk(tmp_path) -> str:
    """1.6 s of audio: three words and the end."""
    return write(tmp_path / "talk.wav")
