"""Sizes of a Voxtral Realtime checkpoint, from any of its configuration formats.

Every size in the model comes from here. Files are untrusted: a missing key, a number out of
range or inconsistent sizes raise :class:`CheckpointError`.
"""

from dataclasses import dataclass
from typing import Any

from voxfast.audio import SAMPLE_RATE
from voxfast.errors import CheckpointError
from voxfast.features import HOP_LENGTH, N_FFT
from voxfast.models.values import integer, number, section

__all__ = ["AudioArgs", "TransformerArgs", "VoxtralArgs", "parse_args"]

# Defaults of mlx-audio and transformers: the values of the published 4B model.
_PUBLISHED_ENCODER = {
    "dim": 1280, "n_layers": 32, "n_heads": 32, "head_dim": 64, "hidden_dim": 5120,
    "n_kv_heads": 32, "norm_eps": 1e-5, "rope_theta": 1e6, "sliding_window": 750,
}  # fmt: skip
_PUBLISHED_DECODER = {
    "dim": 3072, "n_layers": 26, "n_heads": 32, "head_dim": 128, "hidden_dim": 9216,
    "n_kv_heads": 8, "norm_eps": 1e-5, "rope_theta": 1e6, "sliding_window": 8192,
    "vocab_size": 131072,
}  # fmt: skip
_PUBLISHED_AUDIO = {"num_mel_bins": 128, "global_log_mel_max": 1.5}
# Names in transformers' configuration.
_TRANSFORMERS = {
    "dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads", "head_dim": "head_dim",
    "hidden_dim": "intermediate_size", "norm_eps": "rms_norm_eps", "rope_theta": "rope_theta",
    "sliding_window": "sliding_window", "vocab_size": "vocab_size",
}  # fmt: skip


@dataclass(frozen=True)
class TransformerArgs:
    """Sizes of the encoder or of the decoder; ``sliding_window`` includes the own position."""

    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    hidden_dim: int
    sliding_window: int
    norm_eps: float
    rope_theta: float


@dataclass(frozen=True)
class AudioArgs:
    """The front end: ``n_mels`` bins; mels are clamped to 8 below ``global_log_mel_max``."""

    n_mels: int
    global_log_mel_max: float


@dataclass(frozen=True)
class VoxtralArgs:
    """All sizes of a checkpoint.

    Attributes:
        downsample_factor: encoder frames (50 per second) in one position (12.5 per second).
        cond_dim: inner size of the delay conditioning.
    """

    audio: AudioArgs
    encoder: TransformerArgs
    decoder: TransformerArgs
    vocab_size: int
    downsample_factor: int
    cond_dim: int

    @property
    def samples_per_position(self) -> int:
        """Samples of 16 kHz audio in one position: 1280 with a downsample factor of 4."""
        return HOP_LENGTH * 2 * self.downsample_factor


@dataclass(frozen=True)
class _Sections:
    """Parts of a configuration, with the keys of Mistral's format."""

    encoder: dict[str, Any]
    decoder: dict[str, Any]
    audio: dict[str, Any]
    downsample: dict[str, Any]


def parse_args(config: dict[str, Any]) -> VoxtralArgs:
    """Read ``params.json`` or ``config.json``: Mistral's, voxmlx's, mlx-audio's, transformers'.

    Raises:
        CheckpointError: if it is not a usable Voxtral Realtime configuration.
    """
    parts = _sections(config)
    cond_dim = {"ada_rms_norm_t_cond_dim": 32} | parts.decoder
    args = VoxtralArgs(
        audio=_audio_args(parts.audio),
        encoder=_transformer_args(parts.encoder, "encoder"),
        decoder=_transformer_args(parts.decoder, "decoder"),
        vocab_size=integer(parts.decoder, "vocab_size", 64, 1 << 22),
        downsample_factor=integer(parts.downsample, "downsample_factor", 1, 64),
        cond_dim=integer(cond_dim, "ada_rms_norm_t_cond_dim", 1, 1 << 16),
    )
    if args.decoder.dim % 2:
        raise CheckpointError(f"'dim' of the decoder must be even; it is {args.decoder.dim}")
    if parts.decoder.get("tied_embeddings", True) is not True:
        raise CheckpointError(
            "'tied_embeddings' must be true: tokens are chosen by the embeddings; it is "
            f"{parts.decoder['tied_embeddings']!r:.60}"
        )
    return args


def _sections(config: dict[str, Any]) -> _Sections:
    if "multimodal" in config:  # Mistral, voxmlx
        whisper = section(section(config, "multimodal"), "whisper_model_args")
        encoder = section(whisper, "encoder_args")
        audio, downsample = section(encoder, "audio_encoding_args"), "downsample_args"
        return _Sections(encoder, config, audio, section(whisper, downsample))
    published = config.get("model_type") == "voxtral_realtime"
    if published and "encoder_args" in config:  # mlx-audio
        encoder = _PUBLISHED_ENCODER | section(config, "encoder_args")
        decoder = _PUBLISHED_DECODER | section(config, "decoder")
        audio = encoder.get("audio_encoding_args") or config.get("audio_encoding_args") or {}
        audio = _PUBLISHED_AUDIO | section({"audio_encoding_args": audio}, "audio_encoding_args")
        return _Sections(encoder, decoder, audio, {"downsample_factor": 4} | encoder)
    if published and "audio_config" in config and "text_config" in config:  # transformers
        tower, text = section(config, "audio_config"), section(config, "text_config")
        encoder = _PUBLISHED_ENCODER | {"n_kv_heads": tower.get("num_attention_heads", 32)}
        tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings", True))
        return _Sections(
            encoder | _from_transformers(tower),
            _PUBLISHED_DECODER | _from_transformers(text) | {"tied_embeddings": tied},
            _PUBLISHED_AUDIO | {key: tower[key] for key in ("num_mel_bins",) if key in tower},
            {"downsample_factor": 4} | config,
        )
    raise CheckpointError(
        "the configuration is not one of Voxtral Realtime: it has neither 'multimodal' nor "
        f"'encoder_args' nor 'audio_config' with 'text_config'; model_type is "
        f"{config.get('model_type')!r:.60}"
    )


def _from_transformers(config: dict[str, Any]) -> dict[str, Any]:
    """A section of transformers' configuration with Mistral's keys; missing ones stay missing."""
    rope = config.get("rope_parameters") or {}
    rope = section({"rope_parameters": rope}, "rope_parameters")
    if rope.get("rope_type", "default") != "default":
        raise CheckpointError(f"'rope_type' must be 'default'; it is {rope['rope_type']!r:.60}")
    config = rope | config
    found = {here: config.get(there) for here, there in _TRANSFORMERS.items()}
    return {key: value for key, value in found.items() if value is not None}


def _transformer_args(config: dict[str, Any], name: str) -> TransformerArgs:
    args = TransformerArgs(
        dim=integer(config, "dim", 1, 1 << 16),
        n_layers=integer(config, "n_layers", 1, 1024),
        n_heads=integer(config, "n_heads", 1, 1024),
        n_kv_heads=integer(config, "n_kv_heads", 1, 1024),
        head_dim=integer(config, "head_dim", 2, 512),
        hidden_dim=integer(config, "hidden_dim", 1, 1 << 18),
        sliding_window=integer(config, "sliding_window", 1, 1 << 24),
        norm_eps=number(config, "norm_eps", 1e-30, 1.0),
        rope_theta=number(config, "rope_theta", 1.0, 1e12),
    )
    if args.n_heads % args.n_kv_heads or args.head_dim % 2:
        raise CheckpointError(
            f"the {name} has {args.n_heads} heads over {args.n_kv_heads} KV heads of size "
            f"{args.head_dim}; heads must divide evenly and the size must be even"
        )
    return args


def _audio_args(config: dict[str, Any]) -> AudioArgs:
    fixed = {"sampling_rate": SAMPLE_RATE, "hop_length": HOP_LENGTH, "window_size": N_FFT}
    for key, value in fixed.items():
        if config.get(key, value) != value:
            raise CheckpointError(f"{key!r} must be {value}; the checkpoint has {config[key]!r}")
    return AudioArgs(
        n_mels=integer(config, "num_mel_bins", 1, 512),
        global_log_mel_max=number(config, "global_log_mel_max", -20.0, 20.0),
    )
