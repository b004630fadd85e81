"""A model family is one package and one line in the registry: shown with a toy that streams."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import voxfast
from voxfast.errors import CheckpointError
from voxfast.models import registry
from voxfast.models.family import Family, check_names
from voxfast.models.voxtral.loaded import VoxtralOptions
from voxfast.online.stream import QueuedStream, Stream
from voxfast.timed import Word

BLOCK = 1600


class ToyStream(QueuedStream):
    """A word for every tenth of a second: a product with one weight tells loud from quiet."""

    language = None
    tentative = ""

    def __init__(self, weight: mx.array) -> None:
        super().__init__()
        self._weight = weight
        self._end = 0  # sample at which an utterance ends

    def end_utterance(self) -> None:
        self._end = self._clock.model_samples

    def end_stream(self) -> None:
        self.end_utterance()

    @property
    def due(self) -> bool:
        return len(self._queue) >= BLOCK or self._taken < self._end

    def step(self, others: Sequence[Stream] = ()) -> None:
        begin = self._clock.real(self._taken)
        samples = self._take(min(len(self._queue), BLOCK))
        end = self._clock.real(self._taken)
        level = mx.abs(mx.array(samples)).mean()[None] @ self._weight
        self.words.append(Word(" loud" if level.item() > 1 else " quiet", begin, end, 1.0))


class LoadedToy:
    description = "a toy"
    is_demo = True
    dtype = mx.float32
    delays_ms = ()
    offline_block_seconds = 1.0
    offline_whole_seconds = float("inf")

    def vocabulary(self, entries: object) -> None:
        raise voxfast.InvalidOptionError("a toy takes no vocabulary")

    def __init__(
        self, name: str, folder: Path, dtype: mx.Dtype | None, kv_bits: int | None
    ) -> None:
        self._name = name
        self._weight = mx.load(str(folder / "model.safetensors"))["weight"]

    def stream(self, **options: Any) -> ToyStream:
        check_names(self._name, options, VoxtralOptions)
        return ToyStream(self._weight)


def recognises(config: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
    return config.get("model_type") == "toy"


def missing_files(folder: Path) -> list[str]:
    return [] if (folder / "model.safetensors").exists() else ["model.safetensors"]


TOY = Family("Toy", {"toy": "nobody/toy"}, recognises, missing_files, LoadedToy)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry, "FAMILIES", [*registry.FAMILIES, TOY])
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "toy"}))
    mx.save_safetensors(str(tmp_path / "model.safetensors"), {"weight": mx.array([10.0])})
    return tmp_path


def test_a_toy_family_streams(folder: Path) -> None:
    levels = np.repeat(np.float32([0.5, 0.01, 0.5]), [BLOCK, BLOCK, BLOCK // 2])
    with voxfast.load(folder) as model:
        whole = voxfast.transcribe(levels, model=model)
        assert whole.text == "loud quiet loud"
        assert [word.end for word in whole.words] == pytest.approx([0.1, 0.2, 0.25])
        with model.session() as session:
            words = [
                w for chunk in np.split(levels, [1, 80, 1601, 3333]) for w in session.feed(chunk)
            ]
            assert (*words, *session.finish()) == whole.words
        with pytest.raises(voxfast.InvalidOptionError, match="no option 'colour'"):
            model.session(colour="red")


def test_what_a_family_misses_is_its_own_to_say(folder: Path) -> None:
    assert registry.missing_files(folder) == []
    (folder / "model.safetensors").unlink()
    assert registry.missing_files(folder) == ["model.safetensors"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": '{"model_type": "bert"}'}, "Voxtral Realtime, Qwen3-ASR.*'bert'"),
        ({"config.json": "{}"}, "names no model_type"),
        ({"params.json": '{"dim": 4096}'}, "names no model_type"),
        ({"config.json": '{"model_type": ["toy"]}'}, "of no model family"),
        ({"config.json": '{"model_type": '}, "config.json.*cannot be read as JSON"),
        ({"config.json": "[]"}, "must hold a JSON object"),
        ({}, "no config.json or params.json"),
    ],
)
def test_what_no_family_recognises_is_refused(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=message):
        voxfast.load(tmp_path)
