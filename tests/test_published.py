"""Checkpoints as they are published: names and configurations of any origin, mixed types."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from fuzzing.tiny import write_tiny_qwen3_asr, write_tiny_voxtral

import voxfast
from voxfast.errors import CheckpointError
from voxfast.models.qwen3_asr import network as qwen3_asr
from voxfast.models.qwen3_asr.weights import load_qwen3_asr
from voxfast.models.voxtral.convert import convert
from voxfast.models.voxtral.network import DecoderRows, Voxtral
from voxfast.models.voxtral.weights import layout_names, load_voxtral

Tensors = dict[str, mx.array]
PREFIX = "mm_streams_embeddings.embedding_module."


def loaded(path: Path) -> Tensors:
    tensors = mx.load(str(path))
    assert isinstance(tensors, dict)
    return tensors


def run(model: Voxtral) -> tuple[mx.array, list[mx.array]]:
    """Logits behind made-up audio, and all that the stream holds."""
    rng = np.random.default_rng(0)
    mel = mx.array(rng.normal(size=(96, model.args.audio.n_mels)).astype(np.float32))
    encoder, decoder = model.encoder_state(48), model.decoder_state(6, 12)
    (audio,) = model.encode([mel[None]], [[encoder]])
    assert audio is not None
    tokens = mx.array(rng.integers(40, 300, len(audio)))
    out = model.decode([DecoderRows(audio, tokens, decoder)])[0]
    return out, [audio, *encoder.arrays(), *decoder.arrays(), *decoder.scales]


def logits(model: Voxtral) -> np.ndarray:
    return np.array(run(model)[0].astype(mx.float32))


# ---- names, spelled out independently of the loader ----------------------------------------


def as_mistral(tensors: Tensors) -> Tensors:
    return tensors


def as_mlx_audio(tensors: Tensors) -> Tensors:
    rules = (
        ("whisper_encoder.transformer.", "encoder.transformer_"), ("whisper_encoder.", "encoder."),
        ("conv_layers.0.conv.", "conv_layers_0_conv.conv."), ("feed_forward.w", "feed_forward_w"),
        ("conv_layers.1.conv.", "conv_layers_1_conv.conv."), ("cond.0.", "cond.ada_down."),
        ("cond.2.", "cond.ada_up."),
        ("audio_language_projection.", "encoder.audio_language_projection_"),
    )  # fmt: skip
    return _renamed(tensors, rules, "decoder.")


def as_voxmlx(tensors: Tensors) -> Tensors:
    rules = (
        ("whisper_encoder.transformer.", "encoder."), ("whisper_encoder.", "encoder."),
        ("conv_layers.0.conv.", "conv1."), ("conv_layers.1.conv.", "conv2."),
        ("attention.wq", "attention.q_proj"), ("attention.wk", "attention.k_proj"),
        ("attention.wv", "attention.v_proj"), ("attention.wo", "attention.o_proj"),
        ("attention_norm", "attn_norm"), ("feed_forward.w1", "mlp.gate_proj"),
        ("feed_forward.w2", "mlp.down_proj"), ("feed_forward.w3", "mlp.up_proj"),
        ("ada_rms_norm_t_cond.0", "ada_norm.linear_in"), ("tok_embeddings", "embed_tokens"),
        ("ada_rms_norm_t_cond.2", "ada_norm.linear_out"),
        ("audio_language_projection.0", "adapter.w_in"),
        ("audio_language_projection.2", "adapter.w_out"),
    )  # fmt: skip
    return _renamed(tensors, rules, "language_model.")


def _renamed(tensors: Tensors, rules: tuple[tuple[str, str], ...], decoder: str) -> Tensors:
    """By all rules; what then belongs to neither encoder nor adapter is the decoder's."""
    renamed = {}
    for name, tensor in tensors.items():
        name = name.removeprefix(PREFIX)
        for old, new in rules:
            name = name.replace(old, new)
        if not name.startswith(("encoder.", "adapter.")):
            name = decoder + name
        renamed[name] = tensor.swapaxes(1, 2) if tensor.ndim == 3 else tensor
    return renamed


# ---- configurations ------------------------------------------------------------------------


def of_mistral(params: dict[str, Any]) -> dict[str, Any]:
    return params


def of_mlx_audio(params: dict[str, Any]) -> dict[str, Any]:
    encoder = params["multimodal"]["whisper_model_args"]["encoder_args"]
    decoder = {key: value for key, value in params.items() if key != "multimodal"}
    encoder = encoder | {"downsample_factor": 4}
    return {"model_type": "voxtral_realtime", "encoder_args": encoder, "decoder": decoder}


def of_transformers(params: dict[str, Any]) -> dict[str, Any]:
    names = {
        "dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads",
        "n_kv_heads": "num_key_value_heads", "hidden_dim": "intermediate_size",
        "norm_eps": "rms_norm_eps", "sliding_window": "sliding_window", "head_dim": "head_dim",
        "vocab_size": "vocab_size",
    }  # fmt: skip

    def section(config: dict[str, Any]) -> dict[str, Any]:
        rope = {"rope_type": "default", "rope_theta": config["rope_theta"]}
        return {new: config[old] for old, new in names.items()} | {"rope_parameters": rope}

    encoder = params["multimodal"]["whisper_model_args"]["encoder_args"]
    tower = section(encoder)
    tower["num_mel_bins"] = encoder["audio_encoding_args"]["num_mel_bins"]
    return {
        "model_type": "voxtral_realtime",
        "architectures": ["VoxtralRealtimeForConditionalGeneration"],
        "audio_config": tower,
        "text_config": section(params) | {"tie_word_embeddings": True},
        "downsample_factor": 4,
    }


NAMES = (as_mistral, as_mlx_audio, as_voxmlx)
CONFIGURATIONS = (of_mistral, of_mlx_audio, of_transformers)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mistral's layout, with rows long enough to be packed; 32 is what transformers assumes."""
    folder = tmp_path_factory.mktemp("original") / "checkpoint"
    sizes = {"dim": 64, "hidden_dim": 128, "n_layers": 2, "n_kv_heads": 2}
    write_tiny_voxtral(folder, ada_rms_norm_t_cond_dim=32, **sizes)
    weights = folder / "consolidated.safetensors"
    small = {name: 0.1 * x if x.ndim > 1 else x for name, x in loaded(weights).items()}
    mx.eval(small)
    mx.save_safetensors(str(weights), small)
    return folder


@pytest.fixture
def write(original: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a checkpoint with a configuration and tensors of any kind."""
    params = json.loads((original / "params.json").read_text())

    def write(
        tensors: Tensors,
        config: Callable[[dict[str, Any]], dict[str, Any]] = of_mlx_audio,
        *,
        weights: str = "model.safetensors",
        config_file: str = "config.json",
        **more: Any,
    ) -> Path:
        folder = tmp_path / "written"
        folder.mkdir(exist_ok=True)
        mx.save_safetensors(str(folder / weights), tensors)
        (folder / config_file).write_text(json.dumps(config(params) | more))
        for name in ("tekken.json", "voxfast.json"):
            shutil.copy(original / name, folder)
        return folder

    return write


@pytest.fixture
def tensors(original: Path) -> Tensors:
    return loaded(original / "consolidated.safetensors")


def pack(tensors: Tensors, bits: Callable[[str], int | None], group_size: int = 64) -> Tensors:
    """Matrices packed, each module in as many bits as ``bits`` says."""
    packed: Tensors = {}
    for name, tensor in tensors.items():
        module = name.removesuffix(".weight")
        n = bits(module) if tensor.ndim == 2 and tensor.shape[1] % group_size == 0 else None
        if n is None:
            packed[name] = tensor
            continue
        kinds = zip(("weight", "scales", "biases"), mx.quantize(tensor, group_size, n), strict=True)
        packed |= {f"{module}.{kind}": part for kind, part in kinds}
    return packed


# ---- layouts -------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["consolidated.safetensors", "model.safetensors"])
@pytest.mark.parametrize("config_file", ["params.json", "config.json"])
@pytest.mark.parametrize("config", CONFIGURATIONS)
@pytest.mark.parametrize("names", NAMES)
def test_any_names_with_any_configuration(
    original: Path,
    tensors: Tensors,
    write: Callable[..., Path],
    names: Callable[[Tensors], Tensors],
    config: Callable[[dict[str, Any]], dict[str, Any]],
    config_file: str,
    weights: str,
) -> None:
    folder = write(names(tensors), config, weights=weights, config_file=config_file)
    np.testing.assert_array_equal(
        logits(load_voxtral(folder, mx.float32)), logits(load_voxtral(original))
    )


def test_no_name_means_two_things(original: Path) -> None:
    args = load_voxtral(original).args
    names = [set(layout_names(args, layout)) for layout in ("mistral", "voxmlx", "mlx-audio")]
    assert len(set.union(*names)) == sum(map(len, names))


def test_a_tensor_under_two_names_is_refused(tensors: Tensors, write: Callable[..., Path]) -> None:
    tensors["decoder.norm.weight"] = tensors["norm.weight"]
    with pytest.raises(CheckpointError, match=r"norm\.weight' is there twice"):
        load_voxtral(write(tensors))


@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize("config", [of_transformers, of_mlx_audio])
def test_packed_weights_beside_those_they_were_made_of(
    original: Path,
    tensors: Tensors,
    write: Callable[..., Path],
    config: Callable[[dict[str, Any]], dict[str, Any]],
    says: bool,
) -> None:
    """mlx-audio's converter copies params.json and consolidated.safetensors as well."""
    packed = pack(as_mlx_audio(tensors), lambda module: 4)
    more = {"quantization": {"group_size": 64, "bits": 4}} if says else {}
    folder = write(packed, config, **more)
    alone = logits(load_voxtral(folder))
    assert not np.array_equal(alone, logits(load_voxtral(original)))
    for name in ("params.json", "consolidated.safetensors"):
        shutil.copy(original / name, folder)
    np.testing.assert_array_equal(logits(load_voxtral(folder)), alone)


def test_mistrals_weights_beside_those_of_transformers(
    original: Path, tensors: Tensors, write: Callable[..., Path]
) -> None:
    folder = write({"audio_tower.norm.weight": mx.zeros(64)}, of_transformers)
    for name in ("params.json", "consolidated.safetensors"):
        shutil.copy(original / name, folder)
    expected = logits(load_voxtral(original))
    np.testing.assert_array_equal(logits(load_voxtral(folder)), expected)
    (folder / "params.json").unlink()
    np.testing.assert_array_equal(logits(load_voxtral(folder)), expected)
    # Not fetched: what Git keeps in its place, or an index of shards that are not there.
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    np.testing.assert_array_equal(logits(load_voxtral(folder)), expected)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"x": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    np.testing.assert_array_equal(logits(load_voxtral(folder)), expected)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("text_config", "rope_parameters", {"rope_type": "yarn"}, "'yarn'"),
        ("text_config", "rope_parameters", [1], "rope_parameters"),
        ("text_config", "tie_word_embeddings", False, "tied_embeddings"),
        ("text_config", "hidden_size", "x", "'dim'"),
        ("text_config", "num_hidden_layers", 3, r"missing: decoder\.layers\.2"),
        ("audio_config", "num_attention_heads", 3, "divide evenly"),
        (None, "audio_config", None, "audio_config"),
        (None, "downsample_factor", 0, "downsample_factor"),
    ],
)
def test_transformers_configurations_that_do_not_fit(
    tensors: Tensors,
    write: Callable[..., Path],
    section: str | None,
    key: str,
    value: object,
    message: str,
) -> None:
    folder = write(tensors, of_transformers)
    config = json.loads((folder / "config.json").read_text())
    (config if section is None else config[section])[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        load_voxtral(folder)


def test_what_transformers_leaves_out_has_its_defaults(write: Callable[..., Path]) -> None:
    from voxfast.models.voxtral.config import parse_args

    args = parse_args({"model_type": "voxtral_realtime", "audio_config": {}, "text_config": {}})
    assert (args.encoder.dim, args.encoder.n_layers, args.encoder.sliding_window) == (1280, 32, 750)
    assert (args.decoder.dim, args.decoder.n_layers, args.decoder.n_kv_heads) == (3072, 26, 8)
    assert (args.vocab_size, args.downsample_factor, args.cond_dim) == (131072, 4, 32)
    assert args.audio.global_log_mel_max == 1.5
    assert args.encoder.rope_theta == args.decoder.rope_theta == 1e6


# ---- types ---------------------------------------------------------------------------------


def half_but_norms(tensors: Tensors, half: mx.Dtype) -> Tensors:
    """As mlx-audio writes it: norms and biases stay in float32."""
    return {
        name: x if "norm" in name or name.endswith("bias") else x.astype(half)
        for name, x in tensors.items()
    }


@pytest.mark.parametrize("half", [mx.float16, mx.bfloat16])
@pytest.mark.parametrize("bits", [None, 4])
def test_float32_norms_do_not_make_all_float32(
    tensors: Tensors, write: Callable[..., Path], half: mx.Dtype, bits: int | None
) -> None:
    mixed = half_but_norms(as_mlx_audio(tensors), half)
    # The embedding stays plain and is most of the bytes, as are mlx-audio's first conversions.
    folder = write(pack(mixed, lambda module: None if "embed" in module else bits))
    model = load_voxtral(folder)
    out, held = run(model)
    assert model.dtype == out.dtype == half
    assert {x.dtype for x in held} == {half}
    wide = run(load_voxtral(folder, mx.float32))
    assert 2 * sum(x.nbytes for x in held) == sum(x.nbytes for x in wide[1])
    assert np.corrcoef(np.array(out.astype(mx.float32)), np.array(wide[0]))[0, 1] > 0.99
    with voxfast.load(folder) as opened:
        assert opened.dtype == half


def test_scales_decide_before_what_is_not_packed(
    tensors: Tensors, write: Callable[..., Path]
) -> None:
    halves = {name: x.astype(mx.bfloat16) for name, x in as_mlx_audio(tensors).items()}
    packed = pack(halves, lambda module: None if "embed" in module else 4)
    name = "decoder.tok_embeddings.weight"
    packed[name] = packed[name].astype(mx.float32)
    assert load_voxtral(write(packed)).dtype == mx.bfloat16


def test_float32_stays(tensors: Tensors, write: Callable[..., Path]) -> None:
    tensors["norm.weight"] = tensors["norm.weight"].astype(mx.bfloat16)
    assert load_voxtral(write(tensors)).dtype == mx.float32


@pytest.mark.parametrize("half", [mx.float16, mx.bfloat16])
def test_qwen_with_float32_norms(tmp_path: Path, half: mx.Dtype) -> None:
    folder = write_tiny_qwen3_asr(tmp_path / "qwen")
    weights = str(folder / "model.safetensors")
    tensors = loaded(Path(weights))
    packed = {x: tensors[x] for x in tensors if tensors[x].dtype == mx.uint32}
    mx.save_safetensors(weights, half_but_norms(tensors, half) | packed)
    model = load_qwen3_asr(folder)
    state = model.decoder_state()
    out, _ = model.decode([qwen3_asr.DecoderRows([[5, 6, 7]], state)])
    (audio,) = model.stem([(mx.zeros((100, 8)), True)])
    assert model.dtype == out.dtype == audio.dtype == half
    assert {x.dtype for x in state.arrays()} == {half}


# ---- packings ------------------------------------------------------------------------------


def four_or_six(module: str) -> int | None:
    if "norm" in module or "t_cond" in module:
        return None
    return 6 if "w2" in module or "embed" in module else 4


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("listed", [True, False])
def test_bits_per_module(
    tensors: Tensors,
    write: Callable[..., Path],
    names: Callable[[Tensors], Tensors],
    listed: bool,
) -> None:
    """The shapes tell the bits, whether the configuration lists the modules or not."""
    plain = names(tensors)
    modules = {name.removesuffix(".weight") for name, x in plain.items() if x.ndim == 2}
    bits = {}
    for name in modules:  # the same modules, whatever they are called
        same = next(
            old for old, x in tensors.items() if names({old: x}).keys() == {f"{name}.weight"}
        )
        bits[name] = four_or_six(same)
    packed = pack(plain, lambda module: bits[module])
    quantization: dict[str, Any] = {"group_size": 64, "bits": 4}
    if listed:
        own = {
            name: n and {"group_size": 64, "bits": n, "mode": "affine"} for name, n in bits.items()
        }
        quantization |= {name: entry or False for name, entry in own.items()}
    model = load_voxtral(write(packed, quantization=quantization), mx.float32)
    assert model.decoder.tok_embeddings.bits == model.encoder.layers[1].feed_forward.w2.bits == 6
    assert model.decoder.layers[0].attention.wq.bits == 4
    assert "scales" not in model.decoder.layers[0].delay.down
    restored = dict(plain)
    for name, n in bits.items():
        parts = [packed.get(f"{name}.{kind}") for kind in ("weight", "scales", "biases")]
        if n and parts[1] is not None:
            restored[f"{name}.weight"] = mx.dequantize(*parts, 64, n)
    expected = logits(load_voxtral(write(restored)))
    np.testing.assert_allclose(logits(model), expected, atol=2e-3 * np.abs(expected).max())


def test_mixed_bits_are_rewritten_as_they_are(
    tensors: Tensors, write: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write(pack(as_mlx_audio(tensors), four_or_six), quantization={})
    again = convert(folder, tmp_path / "again", bits=None)
    found = json.loads((again / "config.json").read_text())["quantization"]
    assert (found["group_size"], found["bits"]) == (64, 4)
    assert found["language_model.embed_tokens"] == {"group_size": 64, "bits": 6}
    np.testing.assert_array_equal(logits(load_voxtral(again)), logits(load_voxtral(folder)))


MODES = ["mxfp4", "nvfp4", "mxfp8"]


@pytest.mark.parametrize("says", ["whole", "module", "nothing"])
@pytest.mark.parametrize("mode", MODES)
def test_other_packings_are_refused_by_name(
    tensors: Tensors, write: Callable[..., Path], mode: str, says: str
) -> None:
    packed = as_mlx_audio(tensors)
    module = "decoder.layers.0.attention.wq"
    weight, scales = mx.quantize(packed[f"{module}.weight"], mode=mode)
    packed |= {f"{module}.weight": weight, f"{module}.scales": scales}
    sizes = {"group_size": 32, "bits": 4}
    quantization = {
        "whole": sizes | {"mode": mode},
        "module": sizes | {module: sizes | {"mode": mode}},
        "nothing": {},
    }[says]
    with pytest.raises(CheckpointError, match=rf"{mode}.*affine packing.*voxtral-mini-4b-4bit"):
        load_voxtral(write(packed, quantization=quantization))


def test_scales_without_biases_are_refused(tensors: Tensors, write: Callable[..., Path]) -> None:
    packed = pack(as_mlx_audio(tensors), lambda module: 4)
    del packed["decoder.layers.0.attention.wq.biases"]
    with pytest.raises(CheckpointError, match=r"layers\.0\.attention\.wq'.*without biases.*mxfp4"):
        load_voxtral(write(packed))


def test_packings_of_other_programs_are_refused(
    tensors: Tensors, write: Callable[..., Path]
) -> None:
    method = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    with pytest.raises(CheckpointError, match="packed as 'bitsandbytes'"):
        load_voxtral(write(tensors, of_transformers, quantization_config=method))


@pytest.mark.parametrize("mode", MODES)
def test_qwen_in_other_packings_is_refused(tmp_path: Path, mode: str) -> None:
    folder = write_tiny_qwen3_asr(tmp_path / "qwen")
    config = json.loads((folder / "config.json").read_text())
    config["quantization"] = {"group_size": 32, "bits": 4, "mode": mode}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=rf"'{mode}'.*qwen3-asr-0\.6b-8bit"):
        load_qwen3_asr(folder)


# ---- transformers' own layout --------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("config", CONFIGURATIONS)
def test_the_layout_of_transformers_is_refused_by_name(
    write: Callable[..., Path], config: Callable[[dict[str, Any]], dict[str, Any]], prefix: str
) -> None:
    names = (
        "audio_tower.layers.0.self_attn.q_proj.weight",
        "multi_modal_projector.linear_1.weight",
    )
    folder = write({prefix + name: mx.zeros((64, 64)) for name in names}, config)
    with pytest.raises(CheckpointError, match=r"layout of transformers.*-hf.*voxtral-mini-4b"):
        load_voxtral(folder)


def test_qwen_in_the_layout_of_transformers_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_tiny_qwen3_asr(tmp_path / "qwen")
    config = json.loads((folder / "config.json").read_text())
    thinker = config.pop("thinker_config")
    heads = thinker["audio_config"].pop("encoder_attention_heads")
    thinker["audio_config"]["num_attention_heads"] = heads
    (folder / "config.json").write_text(json.dumps(config | thinker))
    names = ("model.audio_tower.ln_post.weight", "model.language_model.norm.weight")
    mx.save_safetensors(str(folder / "model.safetensors"), {name: mx.zeros(4) for name in names})
    with pytest.raises(CheckpointError, match=r"layout of transformers.*-hf.*qwen3-asr-0\.6b"):
        load_qwen3_asr(folder)
