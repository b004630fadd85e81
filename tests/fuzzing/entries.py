"""Every place where bytes from outside come in, and what must hold there.

An entry makes one input from a random number generator and gives it to voxfast. It returns
in a word what happened; anything but a right answer or a VoxfastError is raised.
"""

import io
import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import mlx.core as mx
import numpy as np
import soundfile
from encoded import encoded
from evaluation import DATA_FOLDER

from fuzzing.mutate import mutate_bytes, mutate_json, mutate_json_text
from fuzzing.tiny import N_QWEN, write_tiny_qwen3_asr, write_tiny_voxtral
from voxfast import audio, hub
from voxfast._pcm import SAMPLE_FORMATS
from voxfast.bench.dataset import fingerprint, load_dataset, streams
from voxfast.bench.journal import FORMAT, Journal, Run, load_runs
from voxfast.bench.measure import Record, ShownWord, Step
from voxfast.bench.summary import label, summarise
from voxfast.errors import VoxfastError
from voxfast.models.checkpoint import load_tensors, weight_files
from voxfast.models.qwen3_asr.heads import find_alignment_heads
from voxfast.models.qwen3_asr.tokenizer import Qwen3ASRTokenizer
from voxfast.models.qwen3_asr.weights import load_qwen3_asr
from voxfast.models.registry import load_checkpoint
from voxfast.models.voxtral.tokenizer import VoxtralTokenizer
from voxfast.models.voxtral.weights import load_voxtral
from voxfast.timed import Word

__all__ = ["ENTRIES", "Entry"]

MOST_SAMPLES = 1 << 22  # of one file: a few bytes of FLAC can be hours of silence


@dataclass
class Entry:
    """One entry.

    Args:
        attack: gives one mutated input to voxfast; see above.
        folder: a scratch folder of its own.
    """

    attack: Callable[[Random, Path], None]
    folder: Path
    outcomes: dict[str, int] = field(default_factory=dict)

    def run(self, seed: int) -> None:
        """Try input number ``seed``."""
        try:
            self.attack(Random(seed), self.folder)
            outcome = "accepted"
        except VoxfastError as error:
            outcome = type(error).__name__
            if not str(error).strip():
                raise AssertionError("an error without a message") from error
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1


# ---- audio ------------------------------------------------------------------------------


@cache
def _speech() -> np.ndarray:
    samples, _ = soundfile.read(DATA_FOLDER / "eval" / "eval_00.flac", dtype="float32")
    return np.asarray(samples[:6000])


_BY_FFMPEG = {
    "mp4": ("m4a", "m4a-index-first", "mp4-fragments", "mov", "alac", "mp4-opus"),
    "matroska": ("webm", "webm-live", "mkv", "mkv-flac"),
    "mpeg": ("adts", "mp3-id3v2.3", "mp3-no-index", "mp2", "ac3", "mpegts"),
    "media": ("wma", "avi", "wavpack", "tta", "wav-mp3", "wav-adpcm", "w64", "caf", "aifc"),
    "chained": ("vorbis", "opus"),
}


@cache
def _encoded(container: str) -> tuple[bytes, ...]:
    """Some small valid files of a container, or of several that are alike."""
    if container in _BY_FFMPEG:
        return tuple(encoded(name, 0.3) for name in _BY_FFMPEG[container])
    kinds: dict[str, list[tuple[str, str, int, int]]] = {
        "wav": [
            ("WAV", "PCM_16", 16000, 1), ("WAV", "PCM_24", 44100, 2), ("WAV", "FLOAT", 8000, 1),
            ("WAVEX", "PCM_32", 16000, 2), ("WAV", "PCM_U8", 16000, 1), ("RF64", "PCM_16", 8000, 1),
            ("WAV", "ULAW", 8000, 1), ("WAV", "IMA_ADPCM", 16000, 1), ("WAV", "DOUBLE", 16000, 3),
        ],
        "flac": [("FLAC", "PCM_16", 16000, 1), ("FLAC", "PCM_24", 44100, 2)],
        "ogg": [("OGG", "VORBIS", 16000, 1), ("OGG", "OPUS", 48000, 2)],
        "mp3": [("MP3", "MPEG_LAYER_III", 16000, 1), ("MP3", "MPEG_LAYER_III", 44100, 2)],
        "aiff": [("AIFF", "PCM_16", 16000, 1), ("CAF", "PCM_24", 8000, 2), ("AU", "ALAW", 8000, 1)],
    }  # fmt: skip
    files = []
    for format_, subtype, rate, channels in kinds[container]:
        file = io.BytesIO()
        samples = np.repeat(_speech()[:, None], channels, axis=1)
        soundfile.write(file, samples, rate, subtype=subtype, format=format_)
        files.append(file.getvalue())
    return tuple(files)


def _check_blocks(blocks: Iterator[np.ndarray], size: int | None) -> None:
    """All blocks are audio, and of the promised size but for the last."""
    total, last = 0, size
    for block in blocks:
        assert last == size, "a short block that was not the last"
        assert block.dtype == np.float32
        assert block.ndim in (1, 2)
        assert block.size
        assert np.isfinite(block).all()
        total += len(block)
        if size is not None:
            assert len(block) <= size
            last = len(block)
        if total > MOST_SAMPLES:
            break


def _file_of(container: str) -> Callable[[Random, Path], None]:
    def attack(rng: Random, folder: Path) -> None:
        files = _encoded(container)
        path = folder / "file"
        path.write_bytes(mutate_bytes(rng, rng.choice(files), other=rng.choice(files)))
        seconds = rng.choice((1 / 16000, 0.01, 0.1, 1.0)) if len(files) < 9 else 0.1
        if rng.random() < 0.2:
            promised = audio.duration(path)
            assert promised is None or 0 <= promised < float("inf")
        start = rng.choice((0.0, 0.0, 0.0, 0.1, 1e3, 1e9))
        block = max(0.01, seconds)
        channel: Any = rng.choice(("mix", "mix", "each", 1, 2))
        _check_blocks(
            audio.stream_file(path, start=start, block_seconds=block, channel=channel),
            round(block * 16e3),
        )

    return attack


class _Pipe(io.RawIOBase):
    """Gives out bytes in pieces of random sizes, as a pipe does."""

    def __init__(self, data: bytes, rng: Random) -> None:
        self._data, self._rng = io.BytesIO(data), rng

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, self._rng.choice((1, 7, 4096, 1 << 20))))


def _stdin(rng: Random, folder: Path) -> None:
    files = _encoded("wav")
    kind = rng.random()
    if kind < 0.5:
        data = mutate_bytes(rng, rng.choice(files), other=rng.choice(files))
    elif kind < 0.6:
        data = rng.randbytes(rng.choice((0, 1, 3, 4, 100, 5000)))
    else:
        kinds = ("flac", "ogg", "mp3", "aiff", *_BY_FFMPEG)
        data = mutate_bytes(rng, rng.choice(_encoded(rng.choice(kinds))))
    _check_blocks(
        audio.stream_pcm(
            _Pipe(data, rng),  # type: ignore[arg-type]
            raw_rate=rng.choice((*[None] * 20, 16000, 8000, 999, 0, -1, 768_000, 1 << 40)),
            raw_format=rng.choice((*[None] * 40, *SAMPLE_FORMATS, "s17le")),  # type: ignore[arg-type]
            raw_channels=rng.choice((*[None] * 20, 1, 2, 16, 256, 257, 0)),
            channel=rng.choice(("mix", "mix", "each", 1, 2, 17, 0, "left")),  # type: ignore[arg-type]
            block_seconds=rng.choice((0.08, 1e-4, 1.0, 3600.0, 0.0, float("nan"))),
        ),
        None,
    )


_DTYPES = (
    *("float32",) * 16, *("int16",) * 12, "float64", "float16", ">f4", ">i2", "int8",
    "uint8", "uint16", "int32", "int64", "uint64", "bool", "complex64", "object", "U3", "S2",
    "M8[s]", "m8[s]", "V4", "f4,i2", "longdouble",
)  # fmt: skip
_SHAPES = (
    (0,),
    (1,),
    (7,),
    (400,),
    (9,),
    (33,),
    (161,),
    (1000,),
    (),
    (3, 2),
    (1, 50),
    (50, 1),
    (2, 3, 4),
    (0, 5),
    (1, 1, 9),
)
_LOUD = (0.0, 0.5, 0.9, 0.1, 1.0, -1.0, 15.9, 16.0, 16.1, 32767.0, 1e30, np.inf, -np.inf, np.nan)


def _array(rng: Random) -> Any:
    """Something that may or may not be audio."""
    dtype, shape = rng.choice(_DTYPES), rng.choice(_SHAPES)
    with np.errstate(all="ignore"):
        raw = np.asarray(np.random.default_rng(rng.randrange(1 << 32)).uniform(-1, 1, shape))
        if raw.size and rng.random() < 0.5:
            raw[(rng.randrange(raw.size),) if raw.ndim == 1 else ...] = rng.choice(_LOUD)
        try:
            x = np.asarray(raw * (30000 if "i2" in dtype or "int" in dtype else 1)).astype(dtype)
        except (TypeError, ValueError, OverflowError):
            x = np.zeros(shape, dtype)
    match rng.randrange(24):
        case 0:
            x = x[..., ::-1] if x.ndim else x
        case 1:
            x = np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x
        case 2:
            x.setflags(write=False)
        case 3 if x.dtype == np.float32:  # misaligned
            x = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32)
        case 4:
            return np.ma.masked_array(x)
        case 5:
            return x.tolist()
        case 6:
            return rng.choice(
                (None, 3, "audio", b"\0\0", bytearray(8), memoryview(b"abcd"), {}, [x])
            )
        case 7 if x.dtype in (np.float32, np.int16, np.int32, np.uint8):
            return mx.array(np.ascontiguousarray(x))
        case 8 if x.dtype == np.float32:
            return mx.array(np.ascontiguousarray(x)).astype(rng.choice((mx.float16, mx.bfloat16)))
        case 9 if x.ndim:
            return np.broadcast_to(x[..., :1], (*x.shape[:-1], 1 << 12)) if x.size else x
    return x


def _pcm(rng: Random, folder: Path) -> None:
    x = _array(rng)
    rate = rng.choice((*(16000,) * 9, 16000.0, 8000, 0, -1, float("nan"), None, "16000"))
    resampling = rng.random() < 0.3
    if resampling:
        rate = rng.choice((8000, 44100, 22050.5, 999, 768_001, float("nan"), float("inf"), 1e300))
        checked = audio.resample(x, rate)
    else:
        checked = audio.check_samples(x, rate)  # type: ignore[arg-type]
        assert rate == 16000
    assert isinstance(x, np.ndarray | mx.array)
    assert type(checked) is np.ndarray
    assert x.dtype in (np.float32, np.int16, mx.float32, mx.int16)
    assert checked.dtype == np.float32
    assert checked.ndim == 1
    assert checked.flags.c_contiguous
    assert np.isfinite(checked).all()
    if not resampling:
        plain = np.array(x)
        expected = plain / 32768 if plain.dtype == np.int16 else plain
        np.testing.assert_array_equal(checked, expected.astype(np.float32))


# ---- checkpoints ------------------------------------------------------------------------


@cache
def _tiny(folder: Path) -> Path:
    return write_tiny_voxtral(folder / "tiny")


@cache
def _tiny_qwen(folder: Path) -> Path:
    return write_tiny_qwen3_asr(folder / "tiny-qwen")


@cache
def _sharded(folder: Path) -> Path:
    """The tiny checkpoint in two shards with an index."""
    target = folder / "sharded"
    shutil.copytree(_tiny(folder), target)
    tensors = mx.load(str(target / "consolidated.safetensors"))
    assert isinstance(tensors, dict)
    (target / "consolidated.safetensors").unlink()
    names = sorted(tensors)
    index = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        shard = f"model-{number:05d}-of-00002.safetensors"
        mx.save_safetensors(str(target / shard), {name: tensors[name] for name in part})
        index |= dict.fromkeys(part, shard)
    (target / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    secret = {"outside": mx.zeros((1,))}
    mx.save_safetensors(str(folder / "outside.safetensors"), secret)
    return target


@cache
def _text(path: Path) -> bytes:
    return path.read_bytes()


@cache
def _json(path: Path) -> Any:
    return json.loads(_text(path))


def _use(folder: Path) -> None:
    """Run a stream over a little audio: whatever the checkpoint says, words are sound."""
    stream = load_checkpoint("tiny", folder, None).stream()
    stream.push(_speech()[:3000])
    stream.end_stream()
    for _ in range(200):
        if not stream.due:
            break
        stream.step()
    _check_words(stream.words)


def _check_words(words: list[Word]) -> None:
    start = 0.0
    for word in words:
        assert 0 <= start <= word.start <= word.end < 1e6
        start = word.start


@contextmanager
def _replaced(path: Path, data: bytes) -> Iterator[None]:
    """Other bytes in a file of a checkpoint, for a while."""
    original = _text(path)
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(original)


def _json_file(
    checkpoint: Callable[[Path], Path], name: str, load: Callable[[Path], object] = _use
) -> Callable[[Random, Path], None]:
    """A JSON file of a checkpoint, mostly without what comes after ``load``."""

    def attack(rng: Random, folder: Path) -> None:
        tiny = checkpoint(folder)
        with _replaced(tiny / name, mutate_json_text(rng, _json(tiny / name))):
            (_use if rng.random() < 0.05 else load)(tiny)

    return attack


def _tokenizer(rng: Random, folder: Path) -> None:
    tiny = _tiny(folder)
    path = folder / "tekken.json"
    path.write_bytes(mutate_json_text(rng, _json(tiny / "tekken.json")))
    tokenizer = VoxtralTokenizer(path, 320)
    assert 10 <= tokenizer.position_ms <= 16000
    assert 0 < tokenizer.default_delay_ms <= 10_000
    for token in (*range(300), 319, 320, 1 << 40):
        piece = tokenizer.piece(token)
        assert piece is None or isinstance(piece, bytes)
    if rng.random() < 0.05:
        _json_file(_tiny, "tekken.json")(rng, folder)


def _qwen_tokenizer(rng: Random, folder: Path) -> None:
    """The three files of Qwen3-ASR's tokenizer."""
    tiny = _tiny_qwen(folder)
    path = tiny / rng.choice(("vocab.json", "tokenizer_config.json", "merges.txt"))
    if path.suffix == ".json":
        data = mutate_json_text(rng, _json(path))
    else:
        data = mutate_bytes(rng, _text(path), other=_text(tiny / "vocab.json"))
    with _replaced(path, data):
        tokenizer = Qwen3ASRTokenizer(tiny, N_QWEN)
        head, tail = tokenizer.prompt(rng.choice(("", "", "seven", "\0 \n é 中 \ud7ff" * 9)))
        assert head
        assert tail
        for token in head + tail + tokenizer.language_prefix(rng.choice(("English", ""))):
            assert type(token) is int
            assert 0 <= token < N_QWEN  # whatever is looked up in the embedding
        for token in (0, 300, N_QWEN - 1, 1 << 40):
            piece = tokenizer.piece(token)
            assert piece is None or isinstance(piece, bytes)
        if rng.random() < 0.05:
            _use(tiny)


def _index(rng: Random, folder: Path) -> None:
    sharded = _sharded(folder)
    path = sharded / "model.safetensors.index.json"
    original = _text(path)
    index = mutate_json(rng, _json(path))
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if isinstance(shards, dict) and shards and rng.random() < 0.5:
        shards[rng.choice(list(shards))] = rng.choice(
            ("../outside.safetensors", str(folder / "outside.safetensors"), "..", ".", "x\0y",
             "./model-00001-of-00002.safetensors", "params.json", "a" * 300, "", None, 3, ["x"])
        )  # fmt: skip
    try:
        text = json.dumps(index).encode()
        path.write_bytes(mutate_bytes(rng, text) if rng.random() < 0.1 else text)
        files = weight_files(sharded)
        assert all(file.parent == sharded and file.suffix == ".safetensors" for file in files)
        assert "outside" not in load_tensors(files)
    finally:
        path.write_bytes(original)


def _safetensors(rng: Random, folder: Path) -> None:
    tiny = _tiny(folder)
    data = _text(tiny / "consolidated.safetensors")
    length = int.from_bytes(data[:8], "little")
    kind = rng.random()
    if kind < 0.45:
        header = mutate_json_text(rng, json.loads(data[8 : 8 + length]))
        size = rng.choice((len(header),) * 20 + (0, len(header) - 1, 1 << 63, 1 << 40, len(data)))
        data = size.to_bytes(8, "little") + header + data[8 + length :]
    elif kind < 0.9:
        data = mutate_bytes(rng, data)
    else:
        data = data[: rng.randrange(len(data))]
    path = folder / "mutated.safetensors"
    path.write_bytes(data)
    tensors = load_tensors([path])
    mx.eval(list(tensors.values()))
    if rng.random() < 0.02:
        with _replaced(tiny / "consolidated.safetensors", data):
            _use(tiny)


def _tensors(rng: Random, folder: Path) -> None:
    """Whole files whose tensors have other names, types or shapes."""
    tiny = rng.choice((_tiny, _tiny_qwen))(folder)
    (path,) = tiny.glob("*.safetensors")
    data = _text(path)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    for _ in range(rng.choice((1, 1, 2))):
        name = rng.choice(list(header))
        entry, kind = header[name], rng.randrange(5)
        if kind < 2:
            entry["dtype"] = rng.choice(_SAME_SIZE[entry["dtype"]])
        elif kind == 2:
            entry["shape"] = entry["shape"][::-1]
        elif kind == 3:
            entry["shape"] = rng.choice(([*entry["shape"], 1], [math.prod(entry["shape"])]))
        else:
            other = rng.choice(list(header))
            header[name], header[other] = header[other], header[name]
    text = json.dumps(header).encode()
    with _replaced(path, len(text).to_bytes(8, "little") + text + data[8 + length :]):
        _use(tiny)


_SAME_SIZE = {
    "F32": ("F32", "U32"), "U32": ("F32", "U32"), "F16": ("F16", "BF16"), "BF16": ("F16", "BF16")
}  # fmt: skip


_HEADS: dict[str, Any] = {
    "num_layers": 4,
    "num_heads": 6,
    "alignment_heads_compact": [[3, 5], [1, 0], [2, 2], [3, 1]],
}
_SIZES: dict[str, Any] = {
    "thinker_config": {
        "text_config": {"num_hidden_layers": 4, "num_attention_heads": 6},
        "audio_config": {"encoder_layers": 2},
    }
}


def _heads(rng: Random, folder: Path) -> None:
    """A file of alignment heads, and the sizes it is compared with."""
    (folder / "alignment_heads.json").write_bytes(mutate_json_text(rng, _HEADS))
    config = mutate_json(rng, _SIZES) if rng.random() < 0.2 else _SIZES
    found = find_alignment_heads(folder, config if isinstance(config, dict) else {})
    assert found is not None
    assert len(set(found.heads)) == len(found.heads) > 0
    layers = found.best(rng.choice((1, 3, 100)))
    assert all(type(head) is int and head >= 0 for heads in layers.values() for head in heads)


def _snapshot(rng: Random, folder: Path) -> None:
    """A repository in the hub's cache, the index of which may name anything."""
    repository = folder / "hub" / "models--owner--name"
    snapshot = repository / "snapshots" / "1"
    if not snapshot.is_dir():
        shutil.copytree(_sharded(folder), snapshot)
        (snapshot / "consolidated.safetensors").unlink(missing_ok=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("1")
    path = snapshot / "model.safetensors.index.json"
    with _replaced(path, mutate_json_text(rng, _json(path))):
        assert hub.resolve("owner/name", str(folder / "hub")) == snapshot


def _name(rng: Random, folder: Path) -> None:
    """Names of models; nothing is asked of a network (HF_HUB_OFFLINE)."""
    known = ["voxtral-numbers", "/usr/share", "../..", "~/model", "owner/name", *hub.ALIASES]
    name = mutate_bytes(rng, rng.choice(known).encode()).decode("utf-8", rng.choice(_DECODING))
    name = rng.choice((name, name, name, "voxtral-numbers"))
    found = hub.resolve(name)
    assert found.is_dir()


_DECODING = ("replace", "surrogateescape", "ignore")


# ---- files of benchmarks ----------------------------------------------------------------

_CLIPS = [
    {"file": "a.wav", "text": "seven", "chapter": "1",
     "words": [{"word": "seven", "start": 0.1, "end": 0.5}]},
    {"audio": "b.wav", "transcript": "two twenty", "name": "b", "words": None},
]  # fmt: skip


def _manifest(rng: Random, folder: Path) -> None:
    """A manifest, JSON or JSON Lines, or a folder in LibriSpeech's layout."""
    name = rng.choice(("clips.json", "clips.jsonl", "1-2.trans.txt"))
    data = folder / name.partition(".")[0]
    if not data.is_dir():
        data.mkdir()
        for clip in ("a.wav", "b.wav", "1-2-0000.wav"):
            (data / clip).write_bytes(_encoded("wav")[0])
    if name == "clips.json":
        clips = {"items": _CLIPS} if rng.random() < 0.5 else _CLIPS
        (data / name).write_bytes(mutate_json_text(rng, clips))
    elif name == "clips.jsonl":
        lines = [mutate_json_text(rng, clip) for clip in _CLIPS]
        (data / name).write_bytes(b"\n".join(lines))
    else:
        (data / name).write_bytes(mutate_bytes(rng, b"1-2-0000 SEVEN TWO\na TWENTY\n"))
    clips = load_dataset(data if name == "1-2.trans.txt" else data / name)
    assert len(fingerprint(clips)) == 16
    assert sum(len(stream.clips) for stream in streams(clips, "chapter")) == len(clips)


_HEAD: dict[str, Any] = {
    "options": {"mode": "clip", "chunk_ms": 80, "delay_ms": 480},
    "model": {"name": "m"},
    "setting": {"machine": {"processor": "p", "threads": 2}, "dataset": {"name": "d"}},
}
_RECORD = Record(
    "a", 2.0, 0.5, "seven two", "seven too", (Word(" seven", 0.1, 0.5), Word(" two", 0.6, 0.9)),
    (ShownWord(" seven", 0.1, 0.6, 0.9, 1.0, 1.2), ShownWord(" too", 0.6, 0.8, 0.5)),
    (Step(1.0, 3.0, 9.0, 100.0, 20.0), Step(2.0, 3.0, 9.0, 100.0, 20.0)),
).to_json()  # fmt: skip


def _results(rng: Random, folder: Path) -> None:
    """A file of results, and what is made of it."""
    document = {"format": FORMAT, "runs": [_HEAD | {"records": [_RECORD, _RECORD]}]}
    path = folder / "results.json"
    path.write_bytes(mutate_json_text(rng, document))
    runs = load_runs(path)
    for run in runs:
        json.dumps(summarise(run))
        assert isinstance(label(run, runs), str)


def _journal(rng: Random, folder: Path) -> None:
    """The journal of a benchmark that was interrupted."""
    lines: list[Any] = [[_HEAD], *[{"run": 0, "record": _RECORD} for _ in range(2)]]
    if rng.random() < 0.7:
        changed = rng.randrange(3)
        lines[changed] = mutate_json(rng, lines[changed])
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path = folder / "journal.json.part"
    path.write_bytes(mutate_bytes(rng, data) if rng.random() < 0.4 else data)
    with Journal(folder / "journal.json", [_HEAD]) as journal:
        summarise(Run(*_HEAD.values(), records=journal.done[0]))


ENTRIES: dict[str, Callable[[Random, Path], None]] = {
    "wav": _file_of("wav"),
    "flac": _file_of("flac"),
    "ogg": _file_of("ogg"),
    "mp3": _file_of("mp3"),
    "aiff": _file_of("aiff"),
    **{name: _file_of(name) for name in _BY_FFMPEG},
    "stdin": _stdin,
    "pcm": _pcm,
    "config": _json_file(_tiny, "params.json", load_voxtral),
    "tokenizer": _tokenizer,
    "traits": _json_file(_tiny, "voxfast.json"),
    "qwen-config": _json_file(_tiny_qwen, "config.json", load_qwen3_asr),
    "qwen-tokenizer": _qwen_tokenizer,
    "qwen-traits": _json_file(_tiny_qwen, "voxfast.json"),
    "index": _index,
    "snapshot": _snapshot,
    "safetensors": _safetensors,
    "tensors": _tensors,
    "heads": _heads,
    "name": _name,
    "manifest": _manifest,
    "results": _results,
    "journal": _journal,
}
"""By name; each takes a random number generator and its scratch folder."""
