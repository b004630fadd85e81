"""What the heads of a Qwen3-ASR decoder attend to while it transcribes clips."""

import difflib
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import nan
from typing import cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxfast.audio import SAMPLE_RATE, load_audio
from voxfast.bench.dataset import Clip
from voxfast.errors import DatasetError
from voxfast.models.qwen3_asr.audio import FRAME_RATE, AudioBuffer
from voxfast.models.qwen3_asr.config import TOKEN_FRAMES
from voxfast.models.qwen3_asr.languages import has_word_spaces, written_language
from voxfast.models.qwen3_asr.network import DecoderRows, Qwen3ASR
from voxfast.models.qwen3_asr.passes import run_alone
from voxfast.models.qwen3_asr.text import words_of
from voxfast.models.qwen3_asr.tokenizer import Qwen3ASRTokenizer
from voxfast.models.qwen3_asr.utterance import LONGEST_HEADER
from voxfast.ops import alignment_frame
from voxfast.timed import Token, Word
from voxfast.vad import SpeechSpan, find_speech

__all__ = ["POSITION_SECONDS", "AttendedClip", "AttendedWord", "attend"]

POSITION_SECONDS = TOKEN_FRAMES / FRAME_RATE  # of audio; the last one of a chunk has less
TOKENS_PER_SECOND = 15  # that a transcript may have at the most


@dataclass(frozen=True)
class AttendedWord:
    """A word that the model wrote.

    Attributes:
        first, last: [layers, heads] of float64: the second at which the audio position begins
            that each head attends to, in the query that predicts the word's first and last token.
        spoken: index of the same word as it is said in the clip; None if it is not.
    """

    first: NDArray[np.float64]
    last: NDArray[np.float64]
    spoken: int | None


@dataclass(frozen=True)
class AttendedClip:
    """A clip that was transcribed.

    Attributes:
        words: as the model wrote them.
        spoken: as they are said; their times are NaN if the data set has none.
        spans: speech that the voice detector finds, without padding.
        seconds: length of the clip.
    """

    words: tuple[AttendedWord, ...]
    spoken: tuple[Word, ...]
    spans: tuple[SpeechSpan, ...]
    seconds: float


def attend(
    model: Qwen3ASR,
    tokenizer: Qwen3ASRTokenizer,
    clips: Sequence[Clip],
    *,
    language: str | None = None,
    done: Callable[[float], object] = lambda seconds: None,
) -> list[AttendedClip]:
    """Transcribe clips, and look at what all heads of the decoder attend to.

    Args:
        clips: with or without the times of their words.
        language: canonical name of the language spoken; None lets the model say.
        done: told the length of every clip that is done, in seconds.

    Raises:
        DatasetError: if not one word was recognised.
        AudioFileError: if a clip cannot be read.
    """
    found = []
    for clip in clips:
        samples = load_audio(clip.path)
        tokens, frames, detected = _transcribe(model, tokenizer, samples, language)
        said = (
            [Word(text, nan, nan) for text in clip.text.split()]
            if clip.words is None
            else clip.words
        )
        spoken = _units(said, language or detected)
        words = _matched(tokens, tokenizer, spoken)
        found.append(
            AttendedClip(
                tuple(
                    AttendedWord(_seconds(model, frames[first]), _seconds(model, frames[last]), own)
                    for first, last, own in words
                ),
                tuple(spoken),
                tuple(find_speech(samples, padding_ms=0)),
                len(samples) / SAMPLE_RATE,
            )
        )
        done(found[-1].seconds)
    if not any(word.spoken is not None for clip in found for word in clip.words):
        n_spoken = sum(len(clip.spoken) for clip in found)
        raise DatasetError(
            f"none of the {n_spoken} words in {len(clips)} clips was recognised; are the clips in "
            "a language of the model, and do the words belong to them?"
        )
    return found


def _transcribe(
    model: Qwen3ASR,
    tokenizer: Qwen3ASRTokenizer,
    samples: NDArray[np.float32],
    language: str | None,
) -> tuple[list[int], list[NDArray[np.int32]], str]:
    """Greedy tokens of a clip; of each the frames [layers, heads]; the language as written."""
    buffer = AudioBuffer(model)
    buffer.push(samples)
    audio = run_alone(buffer.encode(end=True))
    if audio is None:
        return [], [], ""
    n_audio, args = len(audio.embeddings), model.args.text
    before, behind = tokenizer.prompt()
    prefix = tokenizer.language_prefix(language) if language is not None else []
    inputs: list[Sequence[int] | mx.array] = [before, audio.embeddings, behind + prefix]
    state = model.decoder_state()
    tokens: list[int] = []
    frames: list[NDArray[np.int32]] = []
    for _ in range(LONGEST_HEADER + max(8, len(samples) * TOKENS_PER_SECOND // SAMPLE_RATE)):
        logits, (queries,) = model.decode([DecoderRows(inputs, state, range(args.n_layers))])
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
        inputs = [tokens[-1:]]
    begin = tokens.index(tokenizer.asr_text) + 1 if tokenizer.asr_text in tokens else 0
    name = written_language(tokenizer.text(tokens[:begin]))
    return tokens[begin:], frames[begin:], name or ""


def _matched(
    tokens: Sequence[int], tokenizer: Qwen3ASRTokenizer, spoken: Sequence[Word]
) -> list[tuple[int, int, int | None]]:
    """Words as written: the places of the first and the last token, and the index of the word
    as spoken, if it was recognised."""
    text = [
        (place, token) for place, token in enumerate(tokens) if tokenizer.piece(token) is not None
    ]
    placed = [Token(token, 1.0, place) for place, token in text]
    written, _ = words_of(placed, None, tokenizer.piece)
    matcher = difflib.SequenceMatcher(
        None,
        [_plain(word) for word, _ in written],
        [_plain(word.text) for word in spoken],
        autojunk=False,
    )
    known = {
        block.a + i: block.b + i
        for block in matcher.get_matching_blocks()
        for i in range(block.size)
    }
    return [
        (own[0].position, own[-1].position, known.get(index))
        for index, (_, own) in enumerate(written)
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
    """Starts of audio positions."""
    args = model.args.audio
    chunk, place = np.divmod(frames, args.chunk_tokens)
    seconds: NDArray[np.float64] = (chunk * args.chunk_frames + place * TOKEN_FRAMES) / FRAME_RATE
    return seconds
