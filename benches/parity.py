"""Tokens against the independent reference, and words for every way of cutting the audio.

    python benches/parity.py

Float32 arithmetic. All 41 evaluation clips at delays of 3, 6 and 12 positions against
tests/data/eval/voxtral_tokens.json; then words and times of some clips in chunks of 1 ms to
7 s against everything at once. Prints every difference; exits with 1 if there is one.
"""

import sys
from pathlib import Path

import mlx.core as mx
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from evaluation import VOXTRAL_FOLDER, load_eval_items, load_voxtral_tokens

import voxfast
from voxfast.models.traits import read_traits
from voxfast.models.voxtral.stream import VoxtralStream
from voxfast.models.voxtral.tokenizer import VoxtralTokenizer
from voxfast.models.voxtral.weights import load_voxtral
from voxfast.timed import Token

CHUNKS_MS = (1, 10, 80, 99, 1000, 7000)


def check_tokens() -> int:
    model = load_voxtral(VOXTRAL_FOLDER, mx.float32)
    tokenizer = VoxtralTokenizer(VOXTRAL_FOLDER / "tekken.json", model.args.vocab_size)
    traits = read_traits(VOXTRAL_FOLDER)
    different = 0
    for delay, truth in load_voxtral_tokens().items():
        count = 0
        for item in load_eval_items():
            tokens: list[Token] = []
            stream = VoxtralStream(model, tokenizer, traits, 80 * delay, on_token=tokens.append)
            for i in range(0, len(item.audio), 1280):
                stream.push(item.audio[i : i + 1280])
                while stream.due:
                    stream.step()
            stream.end_stream()
            while stream.due:
                stream.step()
            found = [token.id for token in tokens]
            count += len(found)
            if found != truth[item.name]:
                different += 1
                at = next(
                    k
                    for k, pair in enumerate(zip(found, truth[item.name], strict=False))
                    if pair[0] != pair[1]
                )
                print(f"delay {delay}, {item.name}: differs from generated token {at} on")
        print(f"delay {delay}: {count} tokens compared", flush=True)
    return different


def check_chunks() -> int:
    different = 0
    with voxfast.load(dtype=mx.float32) as model:

        def run(audio: np.ndarray, chunk: int) -> list[voxfast.Word]:
            with model.session() as session:
                words = []
                for i in range(0, len(audio), chunk):
                    words += session.feed(audio[i : i + chunk])
                return words + session.finish()

        items = load_eval_items()
        for item in (items[1], items[22], items[31], items[40]):
            whole = run(item.audio, len(item.audio))
            for chunk_ms in CHUNKS_MS:
                if run(item.audio, 16 * chunk_ms) != whole:
                    different += 1
                    print(f"{item.name}: chunks of {chunk_ms} ms differ")
            print(f"{item.name}: {len(whole)} words, chunks of {CHUNKS_MS} ms", flush=True)
    return different


if __name__ == "__main__":
    total = check_tokens() + check_chunks()
    print(f"{total} differences")
    sys.exit(1 if total else 0)
