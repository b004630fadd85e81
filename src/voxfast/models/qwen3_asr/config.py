"""Sizes of a Qwen3-ASR checkpoint, read from its ``config.json``.

Files are untrusted: a missing key, a number out of range or inconsistent sizes raise
:class:`CheckpointError` before a module is created.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxfast.errors import CheckpointError
from voxfast.models.checkpoint import is_there, read_json
from voxfast.models.values import integer, number, section

__all__ = ["AudioArgs", "Qwen3ASRArgs", "TextArgs", "is_qwen3_asr", "parse_args"]

TOKEN_FRAMES = 8  # mel frames of an audio token; the last token of a chunk has fewer

# Defaults, the same in both published sizes.
_AUDIO = {
    "num_mel_bins": 128, "n_window": 50, "n_window_infer": 800, "downsample_hidden_size": 480,
    "max_source_positions": 1500,
}  # fmt: skip
_TEXT = {"head_dim": 128, "rope_theta": 1e6, "rms_norm_eps": 1e-6, "tie_word_embeddings": True}
_PUBLISHED_SECTIONS = [24, 20, 20]


@dataclass(frozen=True)
class AudioArgs:
    """The audio tower.

    Attributes:
        chunk_frames: mel frames (10 ms) of a chunk, the input of the conv stem: 100.
        window_frames: mel frames of an attention window, a multiple of chunk_frames.
        conv_dim: channels of the conv stem.
        output_dim: size of an audio embedding, that of the decoder.
    """

    n_mels: int
    n_layers: int
    n_heads: int
    dim: int
    ffn_dim: int
    output_dim: int
    conv_dim: int
    chunk_frames: int
    window_frames: int

    @property
    def chunk_tokens(self) -> int:
        """Audio tokens of a complete chunk: three convolutions halve the rate, rounding up."""
        return -(-self.chunk_frames // TOKEN_FRAMES)


@dataclass(frozen=True)
class TextArgs:
    """The decoder."""

    vocab_size: int
    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    rope_theta: float
    max_positions: int
    tied: bool


@dataclass(frozen=True)
class Qwen3ASRArgs:
    """All sizes of a checkpoint."""

    audio: AudioArgs
    text: TextArgs


def is_qwen3_asr(folder: Path) -> bool:
    """Whether the checkpoint in a folder is of this architecture.

    Raises:
        CheckpointError: if its configuration cannot be read.
    """
    config = folder / "config.json"
    return is_there(config) and read_json(config).get("model_type") == "qwen3_asr"


def parse_args(config: dict[str, Any]) -> Qwen3ASRArgs:
    """Validate ``config.json``.

    Raises:
        CheckpointError: if it is not a usable Qwen3-ASR configuration.
    """
    if config.get("model_type") != "qwen3_asr":
        raise CheckpointError(
            f"the configuration is not one of Qwen3-ASR: model_type is "
            f"{config.get('model_type')!r:.60}, not 'qwen3_asr'"
        )
    thinker = section(config, "thinker_config") if "thinker_config" in config else config
    if thinker.get("classify_num", config.get("classify_num")) is not None:
        raise CheckpointError("this is a Qwen3 forced aligner; it does not transcribe")
    args = Qwen3ASRArgs(
        audio=_audio_args(_AUDIO | section(thinker, "audio_config")),
        text=_text_args(_TEXT | section(thinker, "text_config")),
    )
    if args.audio.output_dim != args.text.dim:
        raise CheckpointError(
            f"audio embeddings of size {args.audio.output_dim} do not fit a decoder of size "
            f"{args.text.dim}"
        )
    return args


def _audio_args(config: dict[str, Any]) -> AudioArgs:
    args = AudioArgs(
        n_mels=integer(config, "num_mel_bins", 8, 512),
        n_layers=integer(config, "encoder_layers", 1, 256),
        n_heads=integer(config, "encoder_attention_heads", 1, 256),
        dim=integer(config, "d_model", 4, 1 << 16),
        ffn_dim=integer(config, "encoder_ffn_dim", 1, 1 << 18),
        output_dim=integer(config, "output_dim", 1, 1 << 16),
        conv_dim=integer(config, "downsample_hidden_size", 1, 1 << 14),
        chunk_frames=2 * integer(config, "n_window", 50, 50),
        window_frames=integer(config, "n_window_infer", 8, 1 << 16),
    )
    if args.n_mels % 8 or args.dim % (2 * args.n_heads) or args.window_frames % args.chunk_frames:
        raise CheckpointError(
            f"{args.n_mels} mel bins must be a multiple of 8, a size of {args.dim} must divide "
            f"over {args.n_heads} heads, and a window of {args.window_frames} frames must be "
            f"whole chunks of {args.chunk_frames}"
        )
    positions = integer(config, "max_source_positions", 1, 1 << 20)
    if positions < args.chunk_tokens:
        raise CheckpointError(f"'max_source_positions' must be at least {args.chunk_tokens}")
    return args


def _text_args(config: dict[str, Any]) -> TextArgs:
    args = TextArgs(
        vocab_size=integer(config, "vocab_size", 64, 1 << 22),
        dim=integer(config, "hidden_size", 1, 1 << 16),
        hidden_dim=integer(config, "intermediate_size", 1, 1 << 18),
        n_layers=integer(config, "num_hidden_layers", 1, 1024),
        n_heads=integer(config, "num_attention_heads", 1, 1024),
        n_kv_heads=integer(config, "num_key_value_heads", 1, 1024),
        head_dim=integer(config, "head_dim", 2, 512),
        rope_theta=number(config, "rope_theta", 1.0, 1e12),
        max_positions=integer({"max_position_embeddings": 65536} | config,
                              "max_position_embeddings", 1024, 1 << 24),
        tied=config["tie_word_embeddings"] is True,
    )  # fmt: skip
    number(config, "rms_norm_eps", 1e-30, 1.0)
    if args.n_heads % args.n_kv_heads or args.head_dim % 2:
        raise CheckpointError(
            f"the decoder has {args.n_heads} heads over {args.n_kv_heads} KV heads of size "
            f"{args.head_dim}; heads must divide evenly and the size must be even"
        )
    scaling = section(config, "rope_scaling") if config.get("rope_scaling") else {}
    sections = scaling.get("mrope_section", _PUBLISHED_SECTIONS)
    if not isinstance(sections, list) or not all(isinstance(n, int) and n >= 0 for n in sections):
        raise CheckpointError(f"'mrope_section' must be a list of sizes; it is {sections!r:.60}")
    if len(sections) != 3 or sum(sections) != args.head_dim // 2:
        raise CheckpointError(
            f"'mrope_section' {sections} must be three sizes that sum to {args.head_dim // 2}"
        )
    return args
