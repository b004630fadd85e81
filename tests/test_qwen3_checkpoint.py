"""Loading Qwen3-ASR: plain, packed, sharded; and everything that is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from voxfast.errors import CheckpointError
from voxfast.models.qwen3_asr.config import parse_args
from voxfast.models.qwen3_asr.network import DecoderRows, Qwen3ASR, TowerRows
from voxfast.models.qwen3_asr.weights import load_qwen3_asr

EMBEDDING = "thinker.model.embed_tokens"


def logits(model: Qwen3ASR) -> np.ndarray:
    """Logits behind a prompt of made-up audio, through tower and decoder."""
    rng = np.random.default_rng(0)
    mel = mx.array(rng.normal(0.3, 0.4, (300, 128)).astype(np.float32))
    (audio,) = model.encode([TowerRows(mel, model.window_state(), alone=True)])
    x = mx.concatenate([audio, model.embed([5, 6])])
    (out,), _ = model.decode([DecoderRows([x], model.decoder_state())])
    return np.array(out.astype(mx.float32))[:463]


@pytest.fixture(scope="module")
def original(qwen_folder: Path) -> np.ndarray:
    return logits(load_qwen3_asr(qwen_folder, mx.float32))


@pytest.fixture
def tensors(qwen_folder: Path) -> dict[str, mx.array]:
    loaded = mx.load(str(qwen_folder / "model.safetensors"))
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture
def config(qwen_folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((qwen_folder / "config.json").read_text())
    return content


def write(folder: Path, config: dict[str, Any], tensors: dict[str, mx.array]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    return folder


def pack(tensors: dict[str, mx.array], part: str, bits: int, group_size: int) -> None:
    """Pack the matrices of a part, in place."""
    for name in [n for n, x in tensors.items() if part in n and x.ndim == 2]:
        if tensors[name].dtype != mx.uint32 and tensors[name].shape[1] % group_size == 0:
            packed = mx.quantize(tensors.pop(name), group_size=group_size, bits=bits)
            base = name.removesuffix(".weight")
            for kind, tensor in zip(("weight", "scales", "biases"), packed, strict=True):
                if ".scales" not in base and ".biases" not in base:
                    tensors[f"{base}.{kind}"] = tensor


def test_shards_and_the_layout_of_mlx_give_the_same(
    original: np.ndarray, config: dict[str, Any], tensors: dict[str, mx.array], tmp_path: Path
) -> None:
    """Without the prefix, convolutions are stored as MLX wants them, and the head may be there."""
    plain = {}
    for name, tensor in tensors.items():
        turned = tensor.transpose(0, 2, 3, 1) if tensor.ndim == 4 else tensor
        plain[name.removeprefix("thinker.")] = turned
    plain["lm_head.weight"] = plain["model.embed_tokens.weight"]  # repeats the tied embedding
    names = sorted(plain)
    shards = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
    for file, part in shards.items():
        mx.save_safetensors(str(tmp_path / file), {name: plain[name] for name in part})
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text(json.dumps(config))
    np.testing.assert_array_equal(logits(load_qwen3_asr(tmp_path, mx.float32)), original)


def test_parts_packed_differently(
    original: np.ndarray, config: dict[str, Any], tensors: dict[str, mx.array], tmp_path: Path
) -> None:
    """Eight bits in the tower, four in the decoder: widths come from the shapes."""
    pack(tensors, "audio_tower", 8, 32)
    pack(tensors, "model.layers", 4, 64)
    model = load_qwen3_asr(write(tmp_path, config, tensors), mx.float32)
    found = logits(model)
    assert not np.array_equal(found, original)
    correlation = np.corrcoef(found, original)[0, 1]
    assert correlation > 0.97


@pytest.mark.parametrize("dtype", [None, mx.float16, mx.bfloat16])
def test_half_precision(original: np.ndarray, qwen_folder: Path, dtype: mx.Dtype | None) -> None:
    model = load_qwen3_asr(qwen_folder, dtype)
    assert model.dtype == (dtype or mx.float16)
    assert np.corrcoef(logits(model), original)[0, 1] > 0.99


def _drop(tensors: dict[str, mx.array]) -> None:
    del tensors["thinker.model.layers.2.mlp.up_proj.weight"]


def _add(tensors: dict[str, mx.array]) -> None:
    tensors["thinker.model.layers.9.mlp.up_proj.weight"] = mx.zeros((2, 2))


def _turn(tensors: dict[str, mx.array]) -> None:
    name = "thinker.audio_tower.layers.0.fc1.weight"
    tensors[name] = tensors[name].T


def _half_packed(tensors: dict[str, mx.array]) -> None:
    del tensors[f"{EMBEDDING}.weight"]


def _wrong_type(tensors: dict[str, mx.array]) -> None:
    name = "thinker.model.norm.weight"
    tensors[name] = tensors[name].astype(mx.uint32)


def _unpacked(tensors: dict[str, mx.array]) -> None:
    tensors[f"{EMBEDDING}.weight"] = tensors[f"{EMBEDDING}.weight"].astype(mx.float16)


def _odd_packing(tensors: dict[str, mx.array]) -> None:
    tensors[f"{EMBEDDING}.scales"] = mx.zeros((151936, 3))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_drop, "1 missing: model.layers.2.mlp.up_proj.weight"),
        (_add, "1 unknown: model.layers.9.mlp.up_proj.weight"),
        (_turn, r"audio_tower.layers.0.fc1.weight is \(160, 640\), not \(640, 160\)"),
        (_half_packed, r"'model.embed_tokens' of 128 columns cannot be packed as None"),
        (_wrong_type, "'model.norm.weight' is of type mlx.core.uint32"),
        (_unpacked, "'model.embed_tokens.weight' is of type mlx.core.float16"),
        (_odd_packing, r"cannot be packed as \(151936, 8\) with scales \(151936, 3\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    config: dict[str, Any],
    tensors: dict[str, mx.array],
    tmp_path: Path,
    spoil: Callable[[dict[str, mx.array]], None],
    message: str,
) -> None:
    spoil(tensors)
    with pytest.raises(CheckpointError, match=message):
        load_qwen3_asr(write(tmp_path, config, tensors))


def test_a_file_that_is_cut_off_is_refused(qwen_folder: Path, tmp_path: Path) -> None:
    shutil.copy(qwen_folder / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match="no weights"):
        load_qwen3_asr(tmp_path)
    weights = (qwen_folder / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(CheckpointError, match="cut off"):
        load_qwen3_asr(tmp_path)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_qwen3_asr(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("where", "key", "value", "message"),
    [
        ((), "model_type", "whisper", "model_type is 'whisper'"),
        ((), "thinker_config", None, "needs an object 'thinker_config'"),
        (("thinker_config",), "classify_num", 5000, "forced aligner"),
        (("thinker_config",), "text_config", 3, "needs an object 'text_config'"),
        (("thinker_config", "audio_config"), "d_model", 10**9, "'d_model'"),
        (("thinker_config", "audio_config"), "d_model", 158, "must divide"),
        (("thinker_config", "audio_config"), "num_mel_bins", 81, "multiple of 8"),
        (("thinker_config", "audio_config"), "encoder_layers", True, "'encoder_layers'"),
        (("thinker_config", "audio_config"), "n_window_infer", 850, "whole chunks"),
        (("thinker_config", "audio_config"), "output_dim", 64, "do not fit a decoder"),
        (("thinker_config", "audio_config"), "max_source_positions", 12, "at least 13"),
        (("thinker_config", "text_config"), "hidden_size", None, "'hidden_size'"),
        (("thinker_config", "text_config"), "num_key_value_heads", 3, "divide evenly"),
        (("thinker_config", "text_config"), "rope_theta", "big", "'rope_theta'"),
        (("thinker_config", "text_config"), "rms_norm_eps", -1.0, "'rms_norm_eps'"),
        (("thinker_config", "text_config"), "rope_scaling", "x", "'rope_scaling'"),
        (("thinker_config", "text_config"), "rope_scaling", {"mrope_section": [1, 2, 3]}, "sum"),
        (("thinker_config", "text_config"), "rope_scaling", {"mrope_section": 3}, "list"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(
    config: dict[str, Any], where: tuple[str, ...], key: str, value: Any, message: str
) -> None:
    parse_args(config)
    section = config
    for name in where:
        section = section[name]
    section[key] = value
    with pytest.raises(CheckpointError, match=message):
        parse_args(config)


def test_an_untied_head_is_used(
    original: np.ndarray, config: dict[str, Any], tensors: dict[str, mx.array], tmp_path: Path
) -> None:
    config["thinker_config"]["text_config"]["tie_word_embeddings"] = False
    with pytest.raises(CheckpointError, match=r"1 missing: lm_head\.weight"):
        load_qwen3_asr(write(tmp_path, config, tensors))
    tensors["thinker.lm_head.weight"] = mx.zeros((151936, 128), mx.float16)
    model = load_qwen3_asr(write(tmp_path, config, tensors), mx.float32)
    assert not logits(model).any()
