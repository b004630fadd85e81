"""Real seconds for the model's samples, with padding and pauses that were not inserted."""

import random

import pytest

from voxfast.online.clock import Clock


def test_plain_audio_is_one_to_one() -> None:
    clock = Clock()
    clock.insert(16000)
    assert clock.now == 1.0
    assert clock.real(8000) == 0.5


def test_padding_stands_still() -> None:
    clock = Clock()
    clock.insert(16000)
    clock.pad(32000)
    assert clock.now == 1.0
    assert clock.real(20000) == 1.0
    clock.insert(8000)
    assert clock.now == 1.5
    assert clock.real(48000 + 4000) == 1.25
    assert clock.real(8000) == 0.5


def test_a_pause_moves_what_follows() -> None:
    clock = Clock()
    clock.insert(16000)
    clock.skip(10.0)
    clock.insert(16000)
    assert clock.real(15999) < 1.0
    assert clock.real(16000) == 11.0
    assert clock.now == 12.0


def test_a_stream_may_open_with_a_pause() -> None:
    clock = Clock()
    clock.skip(3.0)
    clock.skip(0.5)
    clock.insert(1600)
    assert clock.real(0) == 3.5
    assert clock.now == pytest.approx(3.6)


def test_against_a_list_of_every_sample() -> None:
    rng = random.Random(1)
    clock, truth, real = Clock(sample_rate=100), [], 0.0
    for _ in range(200):
        action, n = rng.choice("ipps"), rng.randrange(1, 50)
        if action == "i":
            clock.insert(n)
            truth += [real + i / 100 for i in range(n)]
            real += n / 100
        elif action == "p":
            clock.pad(n)
            truth += [real] * n
        else:
            clock.skip(n / 10)
            real += n / 10
    assert clock.model_samples == len(truth)
    assert [clock.real(i) for i in range(len(truth))] == pytest.approx(truth)
    assert clock.now == pytest.approx(real)
    clock.forget(len(truth) // 2)
    half = range(len(truth) // 2, len(truth))
    assert [clock.real(i) for i in half] == pytest.approx(truth[len(truth) // 2 :])


def test_it_forgets_what_is_over() -> None:
    clock = Clock()
    for _ in range(10_000):
        clock.insert(1280)
        clock.pad(1280)
        clock.skip(1.0)
        clock.forget(clock.model_samples - 12800)
    assert len(clock._segments) < 20
