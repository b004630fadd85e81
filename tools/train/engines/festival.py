"""Festival with two diphone voices and a statistical one; one process says everything."""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence

import soundfile
from numpy.random import Generator

from .base import Speaker, Style, Utterance, draw_size, played_at

__all__ = ["Festival", "load"]

VOICES = ("kal_diphone", "ked_diphone", "cmu_us_slt_arctic_hts")

# Prints "W word start" for each word, and "E" at the end.
_SAY = """(define (say_words text file)
 (let ((u (utt.synth (eval (list 'Utterance 'Text text)))))
  (utt.save.wave u file 'riff)
  (mapcar (lambda (w) (format t "W %s %f\\n" (item.name w) (item.feat w "word_start")))
   (utt.relation.items u 'Word))
  (format t "E\\n") (fflush nil)))
"""


class Festival:
    packages = ("festival", "festvox-kallpc16k", "festvox-kdlpc16k", "festvox-us-slt-hts")
    pauses = True

    def __init__(self) -> None:
        if shutil.which("festival") is None:
            raise RuntimeError("festival is not installed: `apt-get install festival festvox-…`")
        self._process = subprocess.Popen(
            ["festival", "--pipe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._folder = tempfile.TemporaryDirectory()
        self._file = f"{self._folder.name}/said.wav"
        self._send(_SAY)

    def say(
        self, words: Sequence[str], style: Style, speaker: Speaker, rng: Generator
    ) -> Utterance:
        traits = speaker.traits()
        voice = str(traits.choice(VOICES))
        size = draw_size(traits, 0.85, 1.25)
        stretch = size / style.draw_tempo(rng)
        # A full stop would end the utterance, and with it what is said.
        text = style.separator.replace(".", ",").join(words)
        self._send(
            f"(voice_{voice})(Parameter.set 'Duration_Stretch {stretch:.3f})"
            f'(say_words "{text}" "{self._file}")\n'
        )
        spoken = self._receive()
        audio, rate = soundfile.read(self._file, dtype="float32")
        known = [word for word, _ in spoken] == list(words)
        starts = [start for _, start in spoken] if known else []
        return Utterance(*played_at(audio, rate, size, starts), f"festival {voice}")

    def _send(self, lisp: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(lisp)
        self._process.stdin.flush()

    def _receive(self) -> list[tuple[str, float]]:
        assert self._process.stdout is not None
        spoken = []
        while (line := self._process.stdout.readline()).strip() != "E":
            if not line:
                raise RuntimeError("festival ended: are its voices installed?")
            fields = line.split()
            if len(fields) == 3 and fields[0] == "W":
                spoken.append((fields[1], float(fields[2])))
        return spoken


def load() -> Festival:
    return Festival()
