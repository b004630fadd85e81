"""Loading: three layouts, quantised, sharded, converted; and everything that is refused."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from voxfast.errors import CheckpointError, InvalidOptionError
from voxfast.models.checkpoint import load_tensors, weight_files
from voxfast.models.traits import Traits, read_traits
from voxfast.models.voxtral.convert import convert
from voxfast.models.voxtral.network import DecoderRows, Voxtral
from voxfast.models.voxtral.tokenizer import VoxtralTokenizer
from voxfast.models.voxtral.weights import layout_names, load_voxtral


def logits(model: Voxtral) -> np.ndarray:
    """Logits of the last of 40 positions of made-up input, through encoder and decoder."""
    rng = np.random.default_rng(0)
    mel = mx.array(rng.normal(size=(320, model.args.audio.n_mels)).astype(np.float32))
    (audio,) = model.encode([mel[None]], [[model.encoder_state(160)]])
    assert audio is not None
    tokens = mx.array(rng.integers(1000, 1400, 40))
    out = model.decode([DecoderRows(audio, tokens, model.decoder_state(6, 40))])[0]
    return np.array(out.astype(mx.float32))


@pytest.fixture(scope="module")
def original(voxtral_folder: Path) -> np.ndarray:
    return logits(load_voxtral(voxtral_folder, mx.float32))


def write_mlx_audio(source: Path, target: Path, quantize: bool) -> None:
    """The checkpoint in mlx-audio's layout, by names spelled out independently of the loader."""
    target.mkdir()
    params = json.loads((source / "params.json").read_text())
    encoder = params["multimodal"]["whisper_model_args"]["encoder_args"]
    decoder = {k: v for k, v in params.items() if k != "multimodal"}
    config: dict[str, Any] = {
        "model_type": "voxtral_realtime",
        "encoder_args": encoder | {"downsample_factor": 4},
        "decoder": decoder,
    }
    tensors = {}
    weights = mx.load(str(source / "consolidated.safetensors"))
    assert isinstance(weights, dict)
    for name, tensor in weights.items():
        name = name.removeprefix("mm_streams_embeddings.embedding_module.")
        if name.startswith("whisper_encoder."):
            name = "encoder." + name.removeprefix("whisper_encoder.")
            name = name.replace("transformer.layers", "transformer_layers")
            name = name.replace("transformer.norm", "transformer_norm")
            name = name.replace("conv_layers.0.conv", "conv_layers_0_conv.conv")
            name = name.replace("conv_layers.1.conv", "conv_layers_1_conv.conv")
        elif name.startswith("audio_language_projection"):
            name = "encoder." + name.replace("projection.", "projection_")
        else:
            name = "decoder." + name
            name = name.replace("t_cond.0", "t_cond.ada_down").replace("t_cond.2", "t_cond.ada_up")
        name = name.replace("feed_forward.w", "feed_forward_w")
        if tensor.ndim == 3:
            tensor = tensor.swapaxes(1, 2)
        skipped = any(part in name for part in ("norm", "ada_", "conv_layers"))
        if quantize and tensor.ndim == 2 and not skipped:
            packed, scales, biases = mx.quantize(tensor, group_size=64, bits=4)
            base = name.removesuffix(".weight")
            tensors |= {name: packed, f"{base}.scales": scales, f"{base}.biases": biases}
        else:
            tensors[name] = tensor
    if quantize:
        config["quantization"] = {"group_size": 64, "bits": 4}
    mx.save_safetensors(str(target / "model.safetensors"), tensors)
    (target / "config.json").write_text(json.dumps(config))
    shutil.copy(source / "tekken.json", target)


def test_voxmlx_layout_gives_the_same_logits(
    voxtral_folder: Path, original: np.ndarray, tmp_path: Path
) -> None:
    convert(voxtral_folder, tmp_path / "plain", bits=None, dtype=mx.float32)
    np.testing.assert_array_equal(logits(load_voxtral(tmp_path / "plain")), original)


def test_shards_give_the_same_logits(
    voxtral_folder: Path, original: np.ndarray, tmp_path: Path
) -> None:
    folder = convert(
        voxtral_folder, tmp_path / "shards", bits=None, dtype=mx.float32, shard_bytes=1 << 20
    )
    assert len(weight_files(folder)) > 5
    np.testing.assert_array_equal(logits(load_voxtral(folder)), original)
    (folder / "model.safetensors.index.json").unlink()  # shards alone are enough
    np.testing.assert_array_equal(logits(load_voxtral(folder)), original)


def test_mlx_audio_layout_gives_the_same_logits(
    voxtral_folder: Path, original: np.ndarray, tmp_path: Path
) -> None:
    write_mlx_audio(voxtral_folder, tmp_path / "audio", quantize=False)
    model = load_voxtral(tmp_path / "audio", mx.float32)
    np.testing.assert_array_equal(logits(model), original)


def test_whisper_prefix_and_repeated_output_are_known(
    voxtral_folder: Path, original: np.ndarray, tmp_path: Path
) -> None:
    weights = mx.load(str(voxtral_folder / "consolidated.safetensors"))
    assert isinstance(weights, dict)
    renamed = {
        name.replace("mm_streams_embeddings.embedding_module.", "mm_whisper_embeddings."): tensor
        for name, tensor in weights.items()
    }
    renamed["output.weight"] = renamed["mm_whisper_embeddings.tok_embeddings.weight"]
    mx.save_safetensors(str(tmp_path / "consolidated.safetensors"), renamed)
    shutil.copy(voxtral_folder / "params.json", tmp_path)
    np.testing.assert_array_equal(logits(load_voxtral(tmp_path, mx.float32)), original)


@pytest.mark.parametrize(("bits", "group_size"), [(4, 32), (6, 64), (8, 64), (3, 64)])
def test_quantised_equals_the_dequantised_weights(
    voxtral_folder: Path, original: np.ndarray, tmp_path: Path, bits: int, group_size: int
) -> None:
    folder = convert(voxtral_folder, tmp_path / "q", bits=bits, group_size=group_size)
    packed = load_voxtral(folder, mx.float32)
    plain = load_voxtral(voxtral_folder, mx.float32)
    restored = []
    for name, tensor in tree_flatten(packed.parameters()):
        if name.endswith(("scales", "biases")):
            continue
        if tensor.dtype == mx.uint32:
            module = name.removesuffix("weight")
            extra = dict(tree_flatten(packed.parameters()))
            tensor = mx.dequantize(
                tensor, extra[module + "scales"], extra[module + "biases"], group_size, bits
            )
        restored.append((name, tensor))
    plain.load_weights(restored)
    expected = logits(plain)
    # Products with packed weights round x to 15 bits and sign (ops.linear): of the logits,
    # 1.2e-4 of the greatest at most, whatever the processor, and little beside what the
    # weights lost by being packed.
    found = logits(packed)
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())
    assert np.std(found - expected) < 0.03 * np.std(expected - original)


def test_mlx_audio_quantises_what_has_scales(voxtral_folder: Path, tmp_path: Path) -> None:
    write_mlx_audio(voxtral_folder, tmp_path / "audio", quantize=True)
    model = load_voxtral(tmp_path / "audio", mx.float32)
    assert "scales" in model.decoder.layers[0].attention.wq
    assert "scales" not in model.decoder.layers[0].delay.down
    assert np.isfinite(logits(model)).all()


def test_every_name_is_used_once() -> None:
    args = load_args()
    for layout in ("mistral", "voxmlx", "mlx-audio"):
        names = layout_names(args, layout)
        assert len(set(names.values())) == len(names) == len(layout_names(args, "mistral"))


def load_args() -> Any:
    from evaluation import VOXTRAL_FOLDER

    return load_voxtral(VOXTRAL_FOLDER).args


def test_weights_keep_their_type(voxtral_folder: Path) -> None:
    model = load_voxtral(voxtral_folder)
    assert {x.dtype for _, x in tree_flatten(model.parameters())} == {mx.bfloat16}
    assert load_voxtral(voxtral_folder, mx.float16).dtype == mx.float16


# ---- what is refused ---------------------------------------------------------------


@pytest.fixture
def broken(voxtral_folder: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    folder = tmp_path / "broken"
    shutil.copytree(voxtral_folder, folder)
    return folder


def edit_weights(folder: Path, change: Callable[[dict[str, mx.array]], None]) -> None:
    weights = mx.load(str(folder / "consolidated.safetensors"))
    assert isinstance(weights, dict)
    change(weights)
    mx.save_safetensors(str(folder / "consolidated.safetensors"), weights)


def test_missing_extra_and_misshapen_tensors_are_named(broken: Path) -> None:
    def change(weights: dict[str, mx.array]) -> None:
        del weights["layers.3.ffn_norm.weight"]
        weights["layers.9.surprise.weight"] = mx.zeros((2,))
        weights["norm.weight"] = mx.zeros((7,), dtype=mx.bfloat16)

    edit_weights(broken, change)
    with pytest.raises(CheckpointError) as caught:
        load_voxtral(broken)
    message = str(caught.value)
    assert "1 missing: decoder.layers.3.ffn_norm.weight" in message
    assert "1 unknown: layers.9.surprise.weight" in message
    assert "decoder.norm.weight is (7,), not (256,)" in message


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 5000, 1_000_000, 11_000_000])
def test_truncated_weights_are_refused(broken: Path, keep: int) -> None:
    path = broken / "consolidated.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"consolidated\.safetensors"):
        load_voxtral(broken)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [1]},
        {"dtype": "F32", "shape": "x", "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1] * 9, "data_offsets": [0, 4]},
        [1, 2],
    ],
)
def test_false_headers_are_refused_before_anything_is_allocated(
    tmp_path: Path, entry: object
) -> None:
    header = json.dumps({"weight": entry}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(CheckpointError, match="weight"):
        load_tensors([path])


@pytest.mark.parametrize("name", ["../evil.safetensors", "/etc/passwd", "a/b.safetensors", "x.bin"])
def test_an_index_cannot_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a.weight": name}})
    )
    with pytest.raises(CheckpointError, match="not the name of a shard"):
        weight_files(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    name = "model-00001-of-00002.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a.weight": name}})
    )
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        weight_files(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["dim"], None, "'dim'"),
        (["dim"], 255, "even"),
        (["n_layers"], -1, "'n_layers'"),
        (["n_layers"], 10**9, "'n_layers'"),
        (["n_heads"], 3, "divide evenly"),
        (["head_dim"], True, "'head_dim'"),
        (["sliding_window"], 0, "'sliding_window'"),
        (["rope_theta"], "x", "'rope_theta'"),
        (["multimodal"], [], "'multimodal'"),
        (["multimodal", "whisper_model_args", "downsample_args"], 4, "'downsample_args'"),
    ],
)
def test_unusable_configurations_are_refused(
    broken: Path, path: list[str], value: object, message: str
) -> None:
    params = json.loads((broken / "params.json").read_text())
    section = params
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    (broken / "params.json").write_text(json.dumps(params))
    with pytest.raises(CheckpointError, match=message):
        load_voxtral(broken)


def test_another_sample_rate_is_refused(broken: Path) -> None:
    params = (broken / "params.json").read_text()
    params = params.replace('"sampling_rate": 16000', '"sampling_rate": 8000')
    (broken / "params.json").write_text(params)
    with pytest.raises(CheckpointError, match="sampling_rate"):
        load_voxtral(broken)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_files_that_are_no_json_are_refused(broken: Path, content: bytes) -> None:
    (broken / "params.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"params\.json"):
        load_voxtral(broken)


def test_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_voxtral(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="llama"):
        load_voxtral(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", '{"config": {}}', "[1]"])
def test_broken_tokenizers_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tekken.json"
    with pytest.raises(CheckpointError, match="missing"):
        VoxtralTokenizer(path, 1408)
    path.write_text(content)
    with pytest.raises(CheckpointError, match="tokenizer"):
        VoxtralTokenizer(path, 1408)


def test_traits_have_defaults_and_are_checked(tmp_path: Path) -> None:
    assert read_traits(tmp_path) == Traits()
    for content in ('{"delays_ms": []}', '{"demo": 1}', '{"word_timing": {"end_offset": "x"}}'):
        (tmp_path / "voxfast.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"voxfast\.json"):
            read_traits(tmp_path)


def test_convert_refuses_what_it_cannot_do(voxtral_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidOptionError, match="7 in groups of 64"):
        convert(voxtral_folder, tmp_path / "x", bits=7)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InvalidOptionError, match="not empty"):
        convert(voxtral_folder, tmp_path / "full")
    convert(voxtral_folder, tmp_path / "q")
    with pytest.raises(CheckpointError, match="quantised already"):
        convert(tmp_path / "q", tmp_path / "again")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_tokenizer_of_another_model_is_refused(voxtral_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="1408 tokens, but the model only 1000"):
        VoxtralTokenizer(voxtral_folder / "tekken.json", 1000)
