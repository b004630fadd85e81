"""The policy, on frames alone."""

from hypothesis import given
from hypothesis import strategies as st

from voxfast.models.qwen3_asr.policy import Policy, Verdict, first_of_loop, judge

POLICY = Policy(border=4, rewind=10)


def test_a_token_near_the_end_waits() -> None:
    assert judge([95], 100, POLICY) is Verdict.KEEP
    assert judge([96], 100, POLICY) is Verdict.BORDER
    assert judge([99], 100, POLICY) is Verdict.BORDER
    assert judge([50, 96], 100, POLICY) is Verdict.BORDER


def test_a_token_that_falls_back_is_a_lost_thread() -> None:
    assert judge([50, 40], 100, POLICY) is Verdict.KEEP
    assert judge([50, 39], 100, POLICY) is Verdict.REWIND
    assert judge([40], 100, POLICY, before=50) is Verdict.KEEP
    assert judge([39], 100, POLICY, before=50) is Verdict.REWIND
    assert judge([70, 65], 100, POLICY, before=90) is Verdict.KEEP  # it was judged already


def test_without_a_border_everything_is_kept() -> None:
    assert judge([99], 100, Policy(border=0, rewind=10)) is Verdict.KEEP


def test_the_first_steps_are_not_stopped_if_so_asked() -> None:
    policy = Policy(border=4, rewind=10, min_steps=2)
    assert judge([99], 100, policy) is Verdict.KEEP
    assert judge([99, 99], 100, policy) is Verdict.KEEP
    assert judge([99, 99, 99], 100, policy) is Verdict.BORDER


FRAMES = st.lists(st.integers(0, 199), min_size=1, max_size=8)


@given(FRAMES, st.integers(0, 50), st.integers(0, 50), st.integers(0, 199))
def test_at_the_end_nothing_waits(frames: list[int], border: int, rewind: int, before: int) -> None:
    policy = Policy(border, rewind)
    assert judge(frames, 200, policy, before=before, end=True) is Verdict.KEEP


@given(FRAMES, st.integers(0, 50), st.integers(0, 50), st.integers(0, 20))
def test_more_caution_never_keeps_more(
    frames: list[int], border: int, rewind: int, more: int
) -> None:
    if judge(frames, 200, Policy(border + more, rewind)) is Verdict.KEEP:
        assert judge(frames, 200, Policy(border, rewind)) is Verdict.KEEP
    if judge(frames, 200, Policy(border, rewind)) is Verdict.KEEP:
        assert judge(frames, 200, Policy(border, rewind + more)) is Verdict.KEEP


# ---- loops --------------------------------------------------------------------------


def test_a_phrase_that_stays_where_it_was_is_a_loop() -> None:
    assert first_of_loop("abxyxyxyxy", [3, 8, 9, 12, 9, 12, 9, 12, 9, 12]) == 4
    assert first_of_loop("abcccc", [3, 8, 20, 20, 21, 21]) == 3
    assert first_of_loop("abccc", [3, 8, 20, 20, 21]) is None  # three may be spoken
    assert first_of_loop("abcccd", [3, 8, 20, 20, 21, 21]) is None  # it is over


def test_a_phrase_that_is_spoken_again_is_not() -> None:
    assert first_of_loop("aaaaaa", [3, 7, 11, 15, 19, 23]) is None
    assert first_of_loop("xyxyxyxy", [2, 4, 8, 10, 14, 16, 20, 22]) is None


def test_twenty_times_is_a_loop_wherever_it_attends() -> None:
    frames = list(range(0, 200, 8))
    assert first_of_loop("a" * 19, frames[:19]) is None
    assert first_of_loop("b" + "a" * 20, frames[:21]) == 2


@given(st.lists(st.sampled_from("ab"), max_size=24), st.data())
def test_what_is_cut_is_a_repetition_of_what_stays(tokens: list[str], data: st.DataObject) -> None:
    frames = data.draw(st.lists(st.integers(0, 20), min_size=len(tokens), max_size=len(tokens)))
    kept = first_of_loop(tokens, frames)
    if kept is not None:
        assert 0 < kept < len(tokens)
        rest = len(tokens) - kept
        periods = [
            n
            for n in range(1, rest // 3 + 1)
            if rest % n == 0
            and kept >= n
            and tokens[kept - n :] == tokens[kept - n : kept] * (1 + rest // n)
        ]
        assert periods
