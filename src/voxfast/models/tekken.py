"""The tokenizer of Voxtral Realtime: token ids to bytes, and the stream's paddings."""

from pathlib import Path

from voxfast.errors import CheckpointError, InvalidOptionError

__all__ = ["VoxtralTokenizer"]


class VoxtralTokenizer:
    """What streaming needs of ``tekken.json``, read through ``mistral_common``.

    Attributes:
        bos, eos: ids that open the prompt, and that end a text (a stream goes on after it).
        pad: id of ``[STREAMING_PAD]``: nothing to write at this position.
        word: id of ``[STREAMING_WORD]``: a word or a group of words follows.
        n_left_pad: positions of silence before the audio.

    Args:
        path: the file.
        vocab_size: rows of the model's embedding; the tokenizer may not have more.

    Raises:
        CheckpointError: if the file is missing, broken, not a streaming tokenizer, or of
            another model.
    """

    def __init__(self, path: Path, vocab_size: int) -> None:
        from mistral_common.tokens.tokenizers.tekken import Tekkenizer  # 0.4 s: only when needed

        if not path.is_file():
            raise CheckpointError(f"{path}: the tokenizer is missing")
        try:
            self._tekken = Tekkenizer.from_file(path)
            audio = self._tekken.audio
            self.bos = self._tekken.bos_id
            self.eos = self._tekken.eos_id
            self.pad = self._tekken.get_special_token("[STREAMING_PAD]")
            self.word = self._tekken.get_special_token("[STREAMING_WORD]")
        except Exception as error:  # pydantic, KeyError, JSON ...: a broken file, whatever it was
            raise CheckpointError(f"{path}: not a usable tokenizer ({error!r:.200})") from error
        if audio is None or not audio.is_streaming:
            raise CheckpointError(f"{path}: not a tokenizer of a streaming model")
        if self._tekken.n_words > vocab_size:
            raise CheckpointError(
                f"{path}: has {self._tekken.n_words} tokens, but the model only {vocab_size}"
            )
        self._audio = audio
        self.n_left_pad: int = audio.n_left_pad_tokens
        self.vocab_size: int = self._tekken.n_words
        self._n_special: int = self._tekken.num_special_tokens

    @property
    def default_delay_ms(self) -> int:
        """The delay that the checkpoint recommends."""
        return int(self._audio.transcription_delay_ms or 0)

    @property
    def position_ms(self) -> int:
        """Milliseconds of audio in one position."""
        return int(self._audio.frame_duration_ms)

    def n_delay(self, delay_ms: int) -> int:
        """Positions in a delay.

        Raises:
            InvalidOptionError: if it is no positive multiple of a position.
        """
        if not isinstance(delay_ms, int) or delay_ms <= 0 or delay_ms % self.position_ms:
            raise InvalidOptionError(
                f"delay_ms must be a positive multiple of {self.position_ms}; got {delay_ms!r}"
            )
        return int(self._audio.get_num_delay_tokens(delay_ms))

    def n_right_pad(self, delay_ms: int) -> int:
        """Positions of silence that bring out the last word of an utterance."""
        return int(self._audio.n_right_pad_tokens(delay_ms))

    def piece(self, token: int) -> bytes | None:
        """The bytes of a text token; None for a special one."""
        if token < self._n_special or token >= self.vocab_size:
            return None
        return bytes(self._tekken.id_to_byte_piece(token))
