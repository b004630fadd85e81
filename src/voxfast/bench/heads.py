"""Which heads of a Qwen3-ASR checkpoint attend to the audio being spoken: measured on clips.

The model transcribes clips whose word times are known. For every word that it got right, and
for every head of its decoder, the query that predicts the word's first token is asked for the
audio position that it attends to. A head is as good as the share of words that it finds.
"""

import difflib
import json
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxfast.audio import SAMPLE_RATE, load_audio
from voxfast.bench.dataset import Clip
from voxfast.bench.extras import need
from voxfast.errors import DatasetError
from voxfast.models.qwen3_asr.audio import FRAME_RATE, AudioBuffer
from voxfast.models.qwen3_asr.config import TOKEN_FRAMES
from voxfast.models.qwen3_asr.languages import has_word_spaces, written_language
from voxfast.models.qwen3_asr.network import Qwen3ASR
from voxfast.models.qwen3_asr.text import words_of
from voxfast.models.qwen3_asr.tokenizer import Qwen3ASRTokenizer
from voxfast.models.qwen3_asr.utterance import LONGEST_HEADER
from voxfast.ops import alignment_frame
from voxfast.timed import Token, Word

__all__ = ["HeadScores", "draw_heads", "measure_heads"]

LEAST_SHARE = 0.5  # of the words that a head must find to be listed
TOKENS_PER_SECOND = 15  # that a transcript may have at the most


@dataclass(frozen=True)
class HeadScores:
    """What was measured.

    Attributes:
        shares: [layers, heads], the share of words whose attended frame lies within the word,
            give or take ``tolerance``.
        errors: [layers, heads], the median distance in seconds between the attended frame's
            middle and the word's.
        n_words: words that were recognised, on which all is measured.
        n_spoken: words in the clips.
        n_clips: how many clips there were.
        tolerance: seconds.
    """

    shares: NDArray[np.float64]
    errors: NDArray[np.float64]
    n_words: int
    n_spoken: int
    n_clips: int
    tolerance: float

    def ranking(self) -> list[tuple[int, int]]:
        """All heads (layer, head), best first: by share, then by error."""
        _, n_heads = self.shares.shape
        order = np.lexsort((self.errors.ravel(), -self.shares.ravel()))
        return [(int(i) // n_heads, int(i) % n_heads) for i in order]

    def listed(self) -> list[tuple[int, int]]:
        """The heads worth using, best first; one at least."""
        ranking = self.ranking()
        return [head for head in ranking if self.shares[head] >= LEAST_SHARE] or ranking[:1]

    def as_json(self, model: str) -> str:
        """The content of ``alignment_heads.json``, for a checkpoint of that name."""
        content: dict[str, Any] = {
            "model": model,
            "num_layers": self.shares.shape[0],
            "num_heads": self.shares.shape[1],
            "clips": self.n_clips,
            "words": self.n_words,
            "words_spoken": self.n_spoken,
            "definition": "share of the recognised words for which the query that predicts the "
            f"first token attends most to audio within the word, give or take {self.tolerance} s",
            "alignment_heads_compact": [list(head) for head in self.listed()],
        }
        scores = [
            {
                "layer": layer,
                "head": head,
                "score": round(float(self.shares[layer, head]), 4),
                "median_abs_error_s": round(float(self.errors[layer, head]), 4),
            }
            for layer, head in self.ranking()
        ]
        # A line for each key and each head: the file is read by people, too.
        rows = ",\n  ".join(map(json.dumps, scores))
        lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
        return "{\n" + ",\n".join(lines) + f',\n "scores": [\n  {rows}\n ]\n}}\n'


def measure_heads(
    model: Qwen3ASR,
    tokenizer: Qwen3ASRTokenizer,
    clips: Sequence[Clip],
    *,
    language: str | None = None,
    tolerance: float = 0.16,
    done: Callable[[float], object] = lambda seconds: None,
) -> HeadScores:
    """Measure all heads of the decoder.

    Args:
        clips: with the times of their words.
        language: canonical name of the language spoken; None lets the model say.
        tolerance: seconds that an attended frame's middle may lie outside the word.
        done: told the length of every clip that is done, in seconds.

    Raises:
        DatasetError: if a clip comes without times, or not one word was recognised.
        AudioFileError: if a clip cannot be read.
    """
    times, starts, ends = [], [], []
    n_spoken = 0
    for clip in clips:
        if clip.words is None:
            raise DatasetError(f"{clip.path}: the data set gives no times of its words")
        samples = load_audio(clip.path)
        tokens, frames, detected = _transcribe(model, tokenizer, samples, language)
        spoken = _units(clip.words, language or detected)
        for first, word in _recognised(tokens, tokenizer, spoken):
            times.append(_seconds(model, frames[first]))
            starts.append(word.start)
            ends.append(word.end)
        n_spoken += len(spoken)
        done(len(samples) / SAMPLE_RATE)
    if not times:
        raise DatasetError(
            f"none of the {n_spoken} words in {len(clips)} clips was recognised; are the clips in "
            "a language of the model, and do the words belong to them?"
        )
    time = np.stack(times)  # [words, layers, heads]
    start, end = np.array(starts)[:, None, None], np.array(ends)[:, None, None]
    inside = (time >= start - tolerance) & (time <= end + tolerance)
    return HeadScores(
        inside.mean(axis=0),
        np.median(np.abs(time - (start + end) / 2), axis=0),
        len(time),
        n_spoken,
        len(clips),
        tolerance,
    )


def _transcribe(
    model: Qwen3ASR,
    tokenizer: Qwen3ASRTokenizer,
    samples: NDArray[np.float32],
    language: str | None,
) -> tuple[list[int], list[NDArray[np.int32]], str]:
    """Greedy tokens of a clip; of each the frames [layers, heads]; the language as written."""
    buffer = AudioBuffer(model)
    buffer.push(samples)
    audio = buffer.encode(end=True)
    if audio is None:
        return [], [], ""
    n_audio, args = len(audio.embeddings), model.args.text
    before, behind = tokenizer.prompt()
    prefix = tokenizer.language_prefix(language) if language is not None else []
    x = mx.concatenate([model.embed(before), audio.embeddings, model.embed(behind + prefix)])
    state = model.decoder_state()
    tokens: list[int] = []
    frames: list[NDArray[np.int32]] = []
    for _ in range(LONGEST_HEADER + max(8, len(samples) * TOKENS_PER_SECOND // SAMPLE_RATE)):
        logits, queries = model.decode(x, state, range(args.n_layers))
        keys = [cache.state[0] for cache in state.caches]
        found = [
            alignment_frame([q], [k], [[head]], len(before), n_audio)
            for q, k in zip(queries, keys, strict=True)
            for head in range(args.n_heads)
        ]
        token, attended = mx.argmax(logits), mx.concatenate(found, axis=1)
        del keys  # held here, they would be copied in the next step
        mx.eval(token, attended, state.arrays())
        tokens.append(cast(int, token.item()))
        frames.append(np.array(attended).reshape(args.n_layers, args.n_heads))
        if tokens[-1] in tokenizer.ends:
            break
        x = model.embed(tokens[-1:])
    begin = tokens.index(tokenizer.asr_text) + 1 if tokenizer.asr_text in tokens else 0
    name = written_language(tokenizer.text(tokens[:begin]))
    return tokens[begin:], frames[begin:], name or ""


def _recognised(
    tokens: Sequence[int], tokenizer: Qwen3ASRTokenizer, spoken: Sequence[Word]
) -> list[tuple[int, Word]]:
    """Words that were recognised: the place of the first token, and the word as spoken."""
    text = [token for token in tokens if tokenizer.piece(token) is not None]
    places = [Token(token, 1.0, place) for place, token in enumerate(text)]
    written, _ = words_of(places, None, tokenizer.piece)
    matcher = difflib.SequenceMatcher(
        None,
        [_plain(word) for word, _ in written],
        [_plain(word.text) for word in spoken],
        autojunk=False,
    )
    return [
        (written[block.a + i][1][0].position, spoken[block.b + i])
        for block in matcher.get_matching_blocks()
        for i in range(block.size)
    ]


def _units(words: Iterable[Word], language: str) -> list[Word]:
    """Words as the model's text is cut: characters where the language has no spaces."""
    if has_word_spaces(language):
        return list(words)
    units = []
    for word in words:
        text = _plain(word.text) or word.text
        step = (word.end - word.start) / len(text)
        units += [
            Word(character, word.start + i * step, word.start + (i + 1) * step)
            for i, character in enumerate(text)
        ]
    return units


def _plain(text: str) -> str:
    """A word without case and punctuation."""
    return "".join(c for c in text.casefold() if unicodedata.category(c)[0] in "LMN")


def _seconds(model: Qwen3ASR, frames: NDArray[np.int32]) -> NDArray[np.float64]:
    """Middles of audio positions; the last one of a chunk stands for the rest of it."""
    args = model.args.audio
    chunk, place = np.divmod(frames, args.chunk_tokens)
    seconds: NDArray[np.float64] = (
        chunk * args.chunk_frames + (place + 0.5) * TOKEN_FRAMES
    ) / FRAME_RATE
    return seconds


# ---- the map ----------------------------------------------------------------------------


def draw_heads(scores: HeadScores, path: Path, title: str) -> None:
    """Draw the map of layers and heads, those that are listed ringed.

    Args:
        path: the picture, of any format that matplotlib writes.
        title: what stands above it.

    Raises:
        ImportError: without matplotlib.
    """
    need("matplotlib").use("agg")
    plt = need("matplotlib.pyplot")
    n_layers, n_heads = scores.shares.shape
    size = (max(6.0, 2.0 + 0.32 * n_heads), max(3.4, 1.6 + 0.26 * n_layers))
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    shown = axes.imshow(100 * scores.shares, vmin=0, vmax=100, cmap="viridis", aspect="auto")
    layers, heads = zip(*scores.listed(), strict=True)
    axes.scatter(heads, layers, s=110, facecolors="none", edgecolors="#d55e00", linewidths=2)
    axes.set(xlabel="head", ylabel="layer")
    axes.set_title(f"{title}; ringed: in the file", fontsize=10)
    axes.set_xticks(range(0, n_heads, 1 if n_heads <= 16 else 4))
    axes.set_yticks(range(0, n_layers, 1 if n_layers <= 16 else 4))
    figure.colorbar(shown, label="words found, %")
    figure.savefig(path, dpi=130)
    plt.close(figure)
