"""Threads, processes, signals: nothing is mixed up, nothing hangs, nothing is lost."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import mlx.core as mx
import numpy as np
import pytest
from evaluation import EvalItem
from fuzzing.tiny import write_tiny_voxtral

import voxfast
from voxfast.online.turns import Event
from voxfast.timed import Word
from voxfast.vad import SpeechEnded, SpeechStarted

CHUNK = 4000


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_voxtral(tmp_path_factory.mktemp("threads") / "tiny")


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> Iterator[voxfast.Model]:
    with voxfast.load(tiny_folder, dtype=mx.float32) as model:
        yield model


def offline(model: voxfast.Model, audio: np.ndarray) -> list[Word]:
    with model.session() as session:
        return session.feed(audio) + session.finish()


def test_sixteen_sessions_from_sixteen_threads(
    tiny: voxfast.Model, eval_items: list[EvalItem]
) -> None:
    clips = [item.audio[:24000] for item in eval_items[8:24]]
    truth = [offline(tiny, audio) for audio in clips]
    assert sum(map(len, truth)) > 8
    together = threading.Barrier(16)

    def work(audio: np.ndarray) -> list[Word]:
        together.wait(60)
        words: list[Word] = []
        with tiny.session() as session:
            for i in range(0, len(audio), CHUNK):
                words += session.feed(audio[i : i + CHUNK])
            return words + session.finish()

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work, clips)) == truth


def test_one_session_driven_by_asyncio(tiny: voxfast.Model, eval_items: list[EvalItem]) -> None:
    audio = eval_items[30].audio[:48000]

    async def work() -> list[Word]:
        words: list[Word] = []
        with tiny.session() as session:
            for i in range(0, len(audio), CHUNK):
                session.insert(audio[i : i + CHUNK])
                words += await asyncio.to_thread(session.process)
            return words + await asyncio.to_thread(session.finish)

    assert asyncio.run(work()) == offline(tiny, audio)


def test_one_session_fed_and_processed_by_many_threads_at_once(
    tiny: voxfast.Model, eval_items: list[EvalItem]
) -> None:
    audio = eval_items[30].audio[:48000]
    words: list[Word] = []
    keeping = threading.Lock()
    with tiny.session() as session:
        done = threading.Event()

        def process() -> None:
            while not done.is_set():
                new = session.process()
                with keeping:
                    words.extend(new)

        workers = [threading.Thread(target=process) for _ in range(4)]
        for worker in workers:
            worker.start()
        for i in range(0, len(audio), 997):
            session.insert(audio[i : i + 997])
        done.set()
        for worker in workers:
            worker.join()
        words += session.finish()
    # Threads keep words in any order; none is missing and none comes twice.
    assert sorted(words, key=lambda w: (w.start, w.end, w.text)) == sorted(
        offline(tiny, audio), key=lambda w: (w.start, w.end, w.text)
    )


def test_the_interpreter_is_free_during_native_work() -> None:
    """Another thread runs while ops are evaluated, though nobody asks for the lock."""
    from voxfast.ops import linear, log_mel

    x, w = mx.ones((256, 1024)), mx.ones((4096, 1024))
    samples = mx.zeros(16000 * 60)
    mx.eval(x, w, samples)
    before, count, done = sys.getswitchinterval(), [0], threading.Event()

    def tick() -> None:
        while not done.is_set():
            count[0] += 1
            time.sleep(0)  # gives the lock up, and asks for it again

    ticker = threading.Thread(target=tick)
    ticker.start()
    sys.setswitchinterval(1000.0)  # from here on, threads give the lock up of their own accord only
    try:
        result = [linear(x, w, stream=mx.cpu), log_mel(samples, stream=mx.cpu)]
        start = count[0]
        mx.eval(result)
        assert count[0] > start
    finally:
        sys.setswitchinterval(before)
        done.set()
        ticker.join()


# ---- processes --------------------------------------------------------------------------


def run(code: str, folder: Path, *, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a script that may import voxfast, with FOLDER defined; a hang is a failure."""
    start = f"from pathlib import Path\nFOLDER = Path({str(folder)!r})\n"
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", start + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )


OPEN = """
import threading, numpy as np, voxfast
model = voxfast.load(FOLDER)
noise = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
sessions = [model.session() for _ in range(3)]
for session in sessions:
    session.feed(noise)
"""


@pytest.mark.parametrize(
    "end",
    [
        "",
        "sessions[0].insert(noise)",
        "raise SystemExit(0)",
        "del model",
        "del model, sessions, session",
        # Threads that are still at work, and one that nobody waits for: the model may close first.
        """
        def work(session):
            try:
                for _ in range(5):
                    session.feed(noise)
            except voxfast.VoxfastError:
                assert threading.current_thread().daemon
        for session, daemon in zip(sessions, (False, True, False)):
            threading.Thread(target=work, args=(session,), daemon=daemon).start()
        """,
        """
        import atexit
        atexit.register(lambda: print(len(sessions[0].finish()) >= 0))
        """,
    ],
)
def test_the_interpreter_ends_with_sessions_open(end: str, tiny_folder: Path) -> None:
    done = run(OPEN + textwrap.dedent(end), tiny_folder)
    assert (done.returncode, done.stderr) == (0, "")


FORK = """
import os, signal, traceback
def fork(work):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.alarm(60)  # ends a child that hangs
    try:
        work()
        os._exit(7)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
"""


@pytest.mark.parametrize(
    "before", ["", "model.close()", "del model, sessions; import gc; gc.collect()"]
)
def test_the_fork_of_a_process_with_a_model_says_what_to_do(tiny_folder: Path, before: str) -> None:
    """Nothing hangs there, whatever lock another thread held at the fork; the parent goes on."""
    code = """
        kept, processor, owner = sessions, model.processor(), model._owner
        BEFORE
        locks = [owner._lock, kept[0]._calls_lock]
        calls = {
            "load": lambda: voxfast.load(FOLDER),
            "load by name": lambda: voxfast.load("no-such-model"),
            "transcribe": lambda: voxfast.transcribe(noise, model=FOLDER),
            "session": lambda: owner.run(int),
            "feed": lambda: kept[0].feed(noise),
            "insert": lambda: kept[0].insert(noise),
            "process": kept[0].process,
            "heard": lambda: kept[0].heard,
            "lag": lambda: kept[0].lag,
            "flush": kept[0].flush,
            "skip": lambda: kept[0].skip(1.0),
            "finish": kept[0].finish,
            "process_iter": processor.process_iter,
        }

        def work():
            for name, call in calls.items():
                try:
                    call()
                except voxfast.ForkedProcessError as error:
                    assert "'spawn'" in str(error), error
                    assert isinstance(error, voxfast.VoxfastError)
                else:
                    raise AssertionError(f"{name} did not raise")
            kept[0].close()
            owner.close()

        def grandchild():
            assert fork(work) == 7

        for lock in locks:
            lock.acquire()
        codes = fork(work), fork(grandchild)
        for lock in locks:
            lock.release()
        assert codes == (7, 7), codes
        if owner._stop.alive:
            kept[0].feed(noise), kept[0].finish()
        voxfast.load(FOLDER).close()
        print("parent goes on")
    """.replace("BEFORE", before.replace("sessions", "sessions, session"))
    done = run(OPEN + FORK + textwrap.dedent(code), tiny_folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "parent goes on\n"


def test_workers_may_be_forked_before_a_model_is_loaded(tiny_folder: Path) -> None:
    """Importing voxfast, and building arrays without evaluating them, is harmless."""
    code = """
        import multiprocessing, signal, numpy as np, mlx.core as mx, voxfast, voxfast.ops
        frames = voxfast.ops.log_mel(mx.zeros(16000))

        def work(seed):
            noise = np.random.default_rng(seed).normal(0, 0.1, 8000).astype(np.float32)
            with voxfast.load(FOLDER) as model, model.session() as session:
                words = session.feed(noise) + session.finish()
            return words, voxfast.transcribe(noise, model=FOLDER).words

        if __name__ == "__main__":
            with multiprocessing.get_context("fork").Pool(2, signal.alarm, (100,)) as pool:
                found = pool.map(work, [1, 2, 1])
                here = work(1)
                assert found[0] == found[2] == here, (found, here)
            print("same")
    """
    done = run(code, tiny_folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "same\n"


def test_spawned_children_load_their_own(tiny_folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "spawn.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import multiprocessing, numpy as np, voxfast

            def work(seed):
                noise = np.random.default_rng(seed).normal(0, 0.1, 8000).astype(np.float32)
                with voxfast.load({str(tiny_folder)!r}) as model, model.session() as session:
                    return session.feed(noise) + session.finish()

            if __name__ == "__main__":
                here = work(1)
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    assert pool.map(work, [1, 1]) == [here, here]
                print("same")
            """
        ),
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert (done.returncode, done.stdout) == (0, "same\n"), done.stderr


# ---- Ctrl-C -----------------------------------------------------------------------------


class Interrupts:
    """Raises KeyboardInterrupt at random moments, but only inside of voxfast.

    An interrupt that lands in the caller's own lines, after a call has returned, loses what it
    returned whatever a library does. One inside of a destructor is dropped by Python, which
    reports it to a hook; pytest's own is not made to be interrupted in its turn.
    """

    def __init__(self, seed: int) -> None:
        self._rng, self.count, self._is_on = Random(seed), 0, True

    def __enter__(self) -> "Interrupts":
        self._before = signal.signal(signal.SIGALRM, self._strike)
        self._hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        self._arm()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_on = False  # one may be on its way, and would arm the next
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)
        sys.unraisablehook = self._hook

    def _arm(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._rng.choice((1e-5, 1e-4, 1e-3, 5e-3)))

    def _strike(self, number: int, frame: object) -> None:
        if not self._is_on:
            return
        self._arm()
        inside = False
        while frame is not None and not inside:
            inside = "/voxfast/" in frame.f_code.co_filename  # type: ignore[attr-defined]
            frame = frame.f_back  # type: ignore[attr-defined]
        if inside:
            self.count += 1
            raise KeyboardInterrupt


def test_interrupts_lose_nothing(tiny: voxfast.Model, eval_items: list[EvalItem]) -> None:
    audio = eval_items[30].audio[:90000]
    truth = offline(tiny, audio)
    assert truth
    for seed in range(3):
        words: list[Word] = []
        finished = False
        session = tiny.session()
        with Interrupts(seed) as interrupts:
            while not finished:
                try:
                    at = round(session.heard * 16000)
                    if at < len(audio):
                        words += session.feed(audio[at : at + CHUNK])
                    else:
                        words += session.finish()
                        finished = True
                except KeyboardInterrupt:
                    pass
                except voxfast.SessionClosedError:  # finish() was done but for its return
                    finished = True
        words += session.take()
        assert interrupts.count > 3
        assert words == truth
        assert session.heard == pytest.approx(len(audio) / 16000)
    assert offline(tiny, audio) == truth  # the model is as good as before


def test_interrupts_lose_no_events(tiny: voxfast.Model, eval_items: list[EvalItem]) -> None:
    audio = eval_items[30].audio[:40000]

    def events(session: voxfast.Session) -> list[Event]:
        found: list[Event] = []
        finished = False
        while not finished:
            try:
                at = round(session.heard * 16000)
                if at < len(audio):
                    session.insert(audio[at : at + CHUNK])
                last = at + CHUNK >= len(audio)
                found += session.events(finish=last)
                finished = last
            except KeyboardInterrupt:
                pass
        return found

    truth = events(tiny.session(endpoint_ms=300))
    words = [event for event in truth if isinstance(event, Word)]
    assert words
    count = 0
    for seed in range(12):
        session = tiny.session(endpoint_ms=300)
        with Interrupts(seed) as interrupts:
            found = events(session)
        count += interrupts.count
        for kind in (Word, SpeechStarted, SpeechEnded):
            assert [e for e in found if isinstance(e, kind)] == [
                e for e in truth if isinstance(e, kind)
            ]
        segments = [event for event in found if isinstance(event, voxfast.Segment)]
        assert [word for segment in segments for word in segment.words] == words
    assert count > 20


def test_interrupts_leave_words_or_return_them(tiny: voxfast.Model) -> None:
    session = tiny.session()
    said = [Word(f" {i}", float(i), float(i)) for i in range(300)]
    words: list[Word] = []
    with Interrupts(0) as interrupts:
        while interrupts.count < 30:
            words.clear()
            session._stream.words.extend(said)
            while len(words) < len(said):
                try:
                    new = session.take()
                    words += new
                    assert new, "words were lost"
                except KeyboardInterrupt:
                    pass
            assert words == said


def test_ctrl_c_ends_a_process_that_waits(tiny_folder: Path) -> None:
    code = """
        import os, signal
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        try:
            while True:
                sessions[0].feed(noise)
        except KeyboardInterrupt:
            words = sessions[0].finish()
            print("went on", flush=True)
        raise SystemExit(130)
    """
    done = run(OPEN + textwrap.dedent(code), tiny_folder)
    assert (done.returncode, done.stdout, done.stderr) == (130, "went on\n", "")
