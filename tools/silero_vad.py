"""Takes the weights of Silero's voice detector out of its package, and reference results.

    pip install onnx onnxruntime
    pip download --no-deps silero-vad==6.2.3 && unzip silero_vad-*.whl
    python tools/silero_vad.py silero_vad/data/silero_vad_16k_op15.onnx

Writes ``src/voxfast/vad/silero_16k.npz`` and ``tests/data/vad.npz``: probabilities that ONNX
Runtime computes of the recordings in ``tests/data``. (The package's own ``.safetensors`` holds
other weights.) The network's Fourier basis is left out: it is a Hann window's to 1e-7.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import soundfile
from numpy.typing import NDArray

ROOT = Path(__file__).parent.parent
WEIGHTS = ROOT / "src" / "voxfast" / "vad" / "silero_16k.npz"
REFERENCE = ROOT / "tests" / "data" / "vad.npz"
RECORDINGS = ("real/*.flac", "real/*.wav", "speakers/*_0[0-3].flac")  # below tests/data
FRAME, CONTEXT = 512, 64
PARTS = {"decoder.rnn": "lstm", "decoder.decoder.2": "output"}


def weights(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """Arrays by the names that voxfast uses."""
    arrays = {}
    for tensor in model.graph.initializer:
        name = tensor.name.removeprefix("model.")
        if "forward_basis" in name:
            continue
        for theirs, ours in PARTS.items():
            name = name.replace(theirs, ours)
        if name.startswith("encoder."):
            _, number, _, kind = name.split(".")
            name = f"conv{number}.{kind}"
        arrays[name] = onnx.numpy_helper.to_array(tensor)
    return arrays


def probabilities(path: Path, audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """ONNX Runtime's, of whole frames."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    state = np.zeros((2, 1, 128), np.float32)
    padded = np.concatenate((np.zeros(CONTEXT, np.float32), audio))
    found = []
    for start in range(0, len(audio) // FRAME * FRAME, FRAME):
        frame = padded[None, start : start + CONTEXT + FRAME]
        inputs = {"input": frame, "state": state, "sr": np.array(16000)}
        probability, state = session.run(None, inputs)
        found.append(float(probability[0, 0]))
    return np.array(found, np.float32)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    path = Path(sys.argv[1])
    arrays = weights(onnx.load(str(path)))
    np.savez_compressed(WEIGHTS, **arrays)
    print(f"{WEIGHTS.name}: {len(arrays)} arrays, {sum(a.size for a in arrays.values())} weights")
    found = {}
    for pattern in RECORDINGS:
        for recording in sorted((ROOT / "tests" / "data").glob(pattern)):
            audio, rate = soundfile.read(recording, dtype="float32")
            if rate == 16000 and audio.ndim == 1:
                name = recording.relative_to(ROOT / "tests" / "data").as_posix()
                found[name] = probabilities(path, audio)
    np.savez_compressed(REFERENCE, **found)
    print(f"{REFERENCE.name}: {', '.join(f'{k} {len(v)}' for k, v in found.items())}")


if __name__ == "__main__":
    main()
