"""Writes what tests compare with, after the small checkpoints or the clips have changed.

    python tools/reference_tokens.py [voxtral] [qwen]

Voxtral's tokens are those of the NumPy reference in float64; voxfast's serve as a first guess only.
Qwen3-ASR's are those of mlx_qwen3_asr in float32. Close calls of delay 6 are positions whose best
two logits are closer than 0.05: float32 may choose the other one there.
"""

import json
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_qwen3_asr.audio import compute_features
from mlx_qwen3_asr.generate import GenerationConfig, generate
from mlx_qwen3_asr.load_models import load_model
from mlx_qwen3_asr.tokenizer import Tokenizer

from voxfast.models.qwen3_asr.stream import END_PAD
from voxfast.models.traits import read_traits
from voxfast.models.voxtral.stream import VoxtralStream
from voxfast.models.voxtral.tokenizer import VoxtralTokenizer
from voxfast.models.voxtral.weights import load_voxtral

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from evaluation import EVAL_FOLDER, QWEN_FOLDER, VOXTRAL_FOLDER, EvalItem, load_eval_items
from reference.voxtral_numpy import Array, Voxtral

DELAYS = (3, 6, 12)
CLOSE = 0.05
CLIP_OF_PARTS = "eval_31"
SHORT = 60  # seconds; mlx_qwen3_asr takes no longer clip at once


def by_voxfast(audio: Array, n_delay: int) -> list[int]:
    """The tokens of voxfast, which may differ by rounding."""
    network = load_voxtral(VOXTRAL_FOLDER, mx.float32)
    tokenizer = VoxtralTokenizer(
        VOXTRAL_FOLDER / "tekken.json", network.decoder.tok_embeddings.weight.shape[0]
    )
    tokens: list[Any] = []
    stream = VoxtralStream(
        network, tokenizer, read_traits(VOXTRAL_FOLDER), 80 * n_delay, on_token=tokens.append
    )
    stream.push(audio.astype(np.float32))
    stream.end_stream()
    while stream.due:
        stream.step()
    return [token.id for token in tokens]


def write_voxtral(items: Sequence[EvalItem]) -> None:
    voxtral = Voxtral(VOXTRAL_FOLDER)
    tokens: dict[str, dict[str, list[int]]] = {}
    close: dict[str, list[tuple[int, float]]] = {}
    for n_delay in DELAYS:
        found = tokens[str(n_delay)] = {}
        for item in items:
            guess = by_voxfast(item.audio, n_delay)
            found[item.path.name] = voxtral.greedy(item.audio, n_delay, guess)
            if found[item.path.name] != guess:
                print(f"delay {n_delay}: voxfast differs on {item.name}")
            if n_delay == 6:
                embeddings = voxtral.embed_audio(item.audio, 6)
                best = np.sort(voxtral.decode_logits(embeddings, found[item.path.name], 6), -1)
                margins = best[:, -1] - best[:, -2]
                places = np.flatnonzero(margins < CLOSE)
                if len(places):
                    close[item.path.name] = [(int(k), round(float(margins[k]), 4)) for k in places]
    write(
        "voxtral_tokens.json",
        {
            "what": "greedy tokens of voxtral-numbers by the NumPy reference in float64; generated "
            "token k=0 first; key: delay in positions, then file",
            "tokens": tokens,
        },
    )
    write(
        "voxtral_close_calls.json",
        {
            "what": f"delay 6: generated positions k whose two best reference logits are closer "
            f"than {CLOSE}, as [k, margin]; after a difference at such a place the rest of a "
            "clip may differ too",
            "close": close,
        },
    )
    clip = next(item for item in items if item.name == CLIP_OF_PARTS)
    mel = voxtral.log_mel(voxtral.pad_audio(clip.audio, 6))
    parts = {"mel": mel, "audio_embeddings": voxtral.embed_audio(clip.audio, 6)}
    path = EVAL_FOLDER / f"voxtral_{CLIP_OF_PARTS}.npz"
    np.savez_compressed(path, **{name: part.astype(np.float32) for name, part in parts.items()})


def write_qwen(items: Sequence[EvalItem]) -> None:
    network = load_model(str(QWEN_FOLDER), dtype=mx.float32)[0]
    tokenizer = Tokenizer(str(QWEN_FOLDER))
    tokens: dict[str, dict[str, list[int]]] = {"detected": {}, "English": {}}
    for item in items:
        if item.duration > SHORT:
            continue
        # A session ends an utterance with half a second of zeros.
        features, lengths = compute_features(np.pad(item.audio, (0, END_PAD)))
        audio, _ = network.audio_tower(features, lengths)
        for language, found in tokens.items():
            asked = None if language == "detected" else language
            prompt = tokenizer.build_prompt_tokens(audio.shape[1], asked)
            positions = mx.stack([mx.arange(len(prompt))[None]] * 3, axis=1)
            config = GenerationConfig(200)
            found[item.path.name] = generate(network, mx.array([prompt]), audio, positions, config)
    made_with = f"mlx_qwen3_asr {metadata.version('mlx-qwen3-asr')}, float32, CPU"
    write("qwen_tokens.json", {"made_with": made_with, "tokens": tokens})


def write(name: str, document: dict[str, Any]) -> None:
    text = json.dumps(document, separators=(",", ":"))
    (EVAL_FOLDER / name).write_text(text + "\n", encoding="utf-8")


def main() -> None:
    chosen, items = sys.argv[1:] or ["voxtral", "qwen"], load_eval_items()
    if "voxtral" in chosen:
        write_voxtral(items)
    if "qwen" in chosen:
        write_qwen(items)


if __name__ == "__main__":
    main()
