"""The table of the pools: who speaks them, what they say, how long, and how often they are heard.

Pseudo-speakers are numbered: those of training are never heard in calibration (thresholds and
timing of ``voxfast.json``, and the curve of training) or in evaluation, nor the reverse. SVOX Pico
speaks English with two voices that are not trained on, but for voxtral-names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "CALIBRATION",
    "CALIBRATION_POOLS",
    "EVALUATION",
    "EVALUATION_POOLS",
    "MIXTURE",
    "NAMES_MIXTURE",
    "POOLS",
    "RARE_DEV_POOLS",
    "RARE_MIXTURE",
    "RARE_TEST_POOLS",
    "TRAINING",
    "PoolPlan",
]

# Numbers of speakers.
TRAINING, CALIBRATION, EVALUATION, RARE_TEST, RARE_DEV = (
    (0, 256), (300, 324), (400, 424), (500, 524), (600, 624),
)  # fmt: skip

MIXED = {"fluent": 0.5, "commas": 0.15, "isolated": 0.35}
SLOWLY = {"slow": 0.8, "isolated": 0.2}
WORDS_APART = {"isolated": 0.7, "slow": 0.3}  # Pico has no times of words
APART = {"isolated": 0.5, "slow": 0.25, "fluent": 0.25}
PHRASES = {"phrases": 0.8, "drills": 0.2}
DRILLS = {"phrases": 0.4, "drills": 0.6}
DIGITS = {"digits": 1.0}
OTHERS = {"others": 1.0}
RARELY = {"rare": 1.0}
NAMES = {"names": 1.0}


@dataclass(frozen=True)
class PoolPlan:
    """A pool of phrases.

    Attributes:
        hours: speech to make.
        part: of the phrases of training, relative to the other pools; 0 for those that are
            never trained on.
        styles, texts: probabilities.
        speakers: first number and the one after the last.
    """

    name: str
    engine: str
    seed: int
    hours: float
    part: float = 0.0
    styles: dict[str, float] = field(default_factory=lambda: dict(MIXED))
    texts: dict[str, float] = field(default_factory=lambda: dict(PHRASES))
    speakers: tuple[int, int] = TRAINING


FLUENTLY = {"fluent": 1.0}

_PLANS = (
    PoolPlan("espeak", "espeak", 1, 8.0, 50, FLUENTLY, {"phrases": 1.0}),
    PoolPlan("flite", "flite", 2, 2.5, 12),
    PoolPlan("festival", "festival", 3, 1.5, 6, {"fluent": 0.6, "commas": 0.4}),
    PoolPlan("hibari", "hibari", 4, 3.0, 17),
    PoolPlan("hibari_slow", "hibari", 5, 1.0, 10, SLOWLY, DRILLS),
    PoolPlan("flite_slow", "flite", 6, 0.6, 7, SLOWLY, DRILLS),
    PoolPlan("espeak_others", "espeak", 7, 1.0, 3, FLUENTLY, OTHERS),
    PoolPlan("flite_others", "flite", 8, 0.6, 3, FLUENTLY, OTHERS),
    PoolPlan("hibari_others", "hibari", 9, 1.5, 9, FLUENTLY, OTHERS),
    PoolPlan("kokoro", "kokoro", 10, 3.0, 28),
    PoolPlan("kokoro_slow", "kokoro", 11, 0.8, 10, SLOWLY, DRILLS),
    PoolPlan("kokoro_others", "kokoro", 12, 0.4, 7, FLUENTLY, OTHERS),
    PoolPlan("espeak_digits", "espeak", 13, 0.4, 6, FLUENTLY, DIGITS),
    PoolPlan("flite_digits", "flite", 14, 0.5, 12, APART, DIGITS),
    PoolPlan("hibari_digits", "hibari", 15, 0.8, 23, APART, DIGITS),
    PoolPlan("kokoro_digits", "kokoro", 16, 0.8, 33, APART, DIGITS),
    PoolPlan("pico_abroad", "pico_abroad", 17, 1.5, 14, WORDS_APART),
    PoolPlan("pico_abroad_digits", "pico_abroad", 18, 0.5, 16, WORDS_APART, DIGITS),
    # Calibration.
    PoolPlan("calibration_pico", "pico_gb", 20, 0.15, 0, WORDS_APART, PHRASES, CALIBRATION),
    PoolPlan("calibration_hibari", "hibari", 21, 0.15, 0, MIXED, PHRASES, CALIBRATION),
    PoolPlan("calibration_kokoro", "kokoro", 22, 0.1, 0, MIXED, PHRASES, CALIBRATION),
    PoolPlan("calibration_espeak", "espeak_unseen", 24, 0.15, 0, FLUENTLY, {"phrases": 1.0},
             CALIBRATION),
    PoolPlan("calibration_others", "pico_gb", 23, 0.15, 0, FLUENTLY, OTHERS, CALIBRATION),
    # Evaluation.
    PoolPlan("evaluation_pico", "pico_us", 30, 0.15, 0, WORDS_APART, PHRASES, EVALUATION),
    PoolPlan("evaluation_hibari", "hibari", 31, 0.15, 0, MIXED, PHRASES, EVALUATION),
    PoolPlan("evaluation_kokoro", "kokoro", 32, 0.1, 0, MIXED, PHRASES, EVALUATION),
    PoolPlan("evaluation_others", "pico_us", 33, 1.0, 0, FLUENTLY, OTHERS, EVALUATION),
)  # fmt: skip

# voxtral-names and voxtral-rare alone.
_RARE_PLANS = (
    PoolPlan("espeak_rare", "espeak", 40, 0.5, 14, FLUENTLY, RARELY),
    PoolPlan("flite_rare", "flite", 41, 0.3, 10, MIXED, RARELY),
    PoolPlan("hibari_rare", "hibari", 42, 0.3, 10, MIXED, RARELY),
    PoolPlan("espeak_names", "espeak", 43, 2.0, 40, FLUENTLY, NAMES),
    PoolPlan("flite_names", "flite", 44, 0.4, 20, MIXED, NAMES),
    PoolPlan("hibari_names", "hibari", 45, 1.2, 40, MIXED, NAMES),
    PoolPlan("pico_names", "pico_gb", 46, 0.4, 24, WORDS_APART, NAMES),
    PoolPlan("pico", "pico_gb", 47, 0.3, 12, WORDS_APART),
    PoolPlan("test_espeak_rare", "espeak_unseen", 60, 0.25, 0, FLUENTLY, RARELY, RARE_TEST),
    PoolPlan("test_hibari_rare", "hibari", 61, 0.25, 0, MIXED, RARELY, RARE_TEST),
    PoolPlan("test_pico_rare", "pico_us", 62, 0.25, 0, MIXED, RARELY, RARE_TEST),
    PoolPlan("test_espeak", "espeak_unseen", 63, 0.25, 0, FLUENTLY, PHRASES, RARE_TEST),
    PoolPlan("test_hibari", "hibari", 64, 0.25, 0, MIXED, PHRASES, RARE_TEST),
    PoolPlan("test_pico", "pico_us", 65, 0.25, 0, MIXED, PHRASES, RARE_TEST),
    PoolPlan("dev_espeak_rare", "espeak_unseen", 70, 0.25, 0, FLUENTLY, RARELY, RARE_DEV),
    PoolPlan("dev_hibari_rare", "hibari", 71, 0.25, 0, MIXED, RARELY, RARE_DEV),
    PoolPlan("dev_pico_rare", "pico_us", 72, 0.25, 0, WORDS_APART, RARELY, RARE_DEV),
    PoolPlan("dev_espeak", "espeak_unseen", 73, 0.5, 0, FLUENTLY, PHRASES, RARE_DEV),
    PoolPlan("dev_hibari", "hibari", 74, 0.5, 0, MIXED, PHRASES, RARE_DEV),
    PoolPlan("dev_pico", "pico_us", 75, 0.5, 0, WORDS_APART, PHRASES, RARE_DEV),
)
NAMES_MIXTURE: Mapping[str, float] = {
    "espeak": 30, "flite": 14, "hibari": 20, **{p.name: p.part for p in _RARE_PLANS if p.part},
}  # fmt: skip
# A name for every 200 words: 15 % of those of one phrase in 30.
RARE_MIXTURE: Mapping[str, float] = {
    "espeak": 30, "flite": 14, "hibari": 20, "pico": 12,
    "espeak_rare": 1, "flite_rare": 0.8, "hibari_rare": 0.8,
}  # fmt: skip
RARE_TEST_POOLS = tuple(plan.name for plan in _RARE_PLANS if plan.speakers == RARE_TEST)
RARE_DEV_POOLS = tuple(plan.name for plan in _RARE_PLANS if plan.speakers == RARE_DEV)

POOLS: Mapping[str, PoolPlan] = {plan.name: plan for plan in (*_PLANS, *_RARE_PLANS)}
MIXTURE: Mapping[str, float] = {plan.name: plan.part for plan in _PLANS if plan.part}
CALIBRATION_POOLS = tuple(plan.name for plan in _PLANS if plan.speakers == CALIBRATION)
EVALUATION_POOLS = tuple(plan.name for plan in _PLANS if plan.speakers == EVALUATION)
