"""Where alignment heads come from, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from voxfast.errors import CheckpointError, InvalidOptionError
from voxfast.models.qwen3_asr.heads import FILE, AlignmentHeads, find_alignment_heads
from voxfast.models.qwen3_asr.loaded import LoadedQwen3ASR
from voxfast.models.qwen3_asr.options import Qwen3Tuning
from voxfast.models.traits import AttentionTiming


def configuration(**sizes: int) -> dict[str, Any]:
    """A ``config.json`` as the published 0.6B has it, with other sizes where given."""
    text = {
        "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
        "hidden_size": 1024, "intermediate_size": 3072, "vocab_size": 151936,
    }  # fmt: skip
    audio = {"encoder_layers": 18, "d_model": 896, "num_mel_bins": 128}
    for key, value in sizes.items():
        (text if key in text else audio)[key] = value
    return {
        "model_type": "qwen3_asr",
        "thinker_config": {"text_config": text, "audio_config": audio},
    }


LARGE = {"hidden_size": 2048, "intermediate_size": 6144, "encoder_layers": 24, "d_model": 1024}


def write(path: Path, *heads: Any, **more: Any) -> Path:
    path.write_text(json.dumps({"alignment_heads_compact": list(heads), **more}))
    return path


def test_published_models_are_known_by_their_sizes(tmp_path: Path) -> None:
    small = find_alignment_heads(tmp_path, configuration())
    large = find_alignment_heads(tmp_path, configuration(**LARGE))
    assert small is not None
    assert large is not None
    assert small.heads[:3] == ((20, 3), (11, 2), (13, 6))
    assert large.heads[:3] == ((11, 2), (11, 13), (20, 3))
    assert len(small.heads) > 50 < len(large.heads)
    flat = configuration()["thinker_config"]
    assert find_alignment_heads(tmp_path, flat) == small


@pytest.mark.parametrize("sizes", [LARGE | {"encoder_layers": 18}, {"num_key_value_heads": 16}])
def test_other_sizes_are_not_known_whatever_the_folder_is_called(
    tmp_path: Path, sizes: dict
) -> None:
    folder = tmp_path / "Qwen3-ASR-0.6B"
    folder.mkdir()
    assert find_alignment_heads(folder, configuration(**sizes)) is None


def test_the_folder_wins_and_what_is_asked_for_wins_over_it(tmp_path: Path) -> None:
    own = write(tmp_path / FILE, [1, 2], [0, 3], num_layers=28, num_heads=16)
    asked = write(tmp_path / "mine.json", [27, 15])
    found = find_alignment_heads(tmp_path, configuration())
    assert found == AlignmentHeads(((1, 2), (0, 3)), own)
    found = find_alignment_heads(tmp_path, configuration(), asked)
    assert found == AlignmentHeads(((27, 15),), asked)
    timed = write(tmp_path / "timed.json", [27, 15], attention_timing={"start_lead": 0.3})
    found = find_alignment_heads(tmp_path, configuration(), timed)
    assert found is not None
    assert found.timing == AttentionTiming(start_lead=0.3)


def test_whose_timing_of_words_is_used(qwen_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(qwen_folder, folder)
    heads = json.loads((folder / FILE).read_text())["alignment_heads_compact"]
    own = {"attention_timing": {"start_lead": 0.4}}
    write(folder / FILE, *heads, **own)
    asked = write(tmp_path / "asked.json", *heads, attention_timing={"start_lead": 0.5})
    untimed = write(tmp_path / "untimed.json", *heads)

    def lead(heads_file: Path | None = None) -> float:
        loaded = LoadedQwen3ASR("x", folder, None)
        timing = loaded._attention(Qwen3Tuning(heads_file=heads_file))[1]
        return -1.0 if timing is None else timing.start_lead

    trained = json.loads((qwen_folder / "voxfast.json").read_text())["attention_timing"]
    own_lead = trained["start_lead"]
    assert (lead(), lead(asked), lead(untimed)) == (own_lead, 0.5, own_lead)
    (folder / "voxfast.json").write_text("{}")
    assert (lead(), lead(asked), lead(untimed)) == (0.4, 0.5, -1.0)


def test_the_best_heads_by_layer() -> None:
    heads = AlignmentHeads(((2, 1), (2, 0), (0, 3), (1, 0)), Path("x.json"))
    assert heads.best(1) == {2: [1]}
    assert heads.best(3) == {0: [3], 2: [0, 1]}
    assert list(heads.best(3)) == [0, 2]
    assert heads.best(99) == {0: [3], 1: [0], 2: [0, 1]}
    for n in (0, -1):
        with pytest.raises(InvalidOptionError, match=str(n)):
            heads.best(n)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read as JSON"),
        ("[[1, 2]]", "not list"),
        ("{}", "it is None"),
        ('{"alignment_heads_compact": []}', r"it is \[\]"),
        ('{"alignment_heads_compact": {"1": 2}}', "must list"),
        ('{"alignment_heads_compact": [[1, 2], 3]}', "3 is not a head"),
        ('{"alignment_heads_compact": [[1, 2, 3]]}', r"\[1, 2, 3\] is not a head"),
        ('{"alignment_heads_compact": [[1.0, 2]]}', r"\[1.0, 2\] is not a head"),
        ('{"alignment_heads_compact": [[true, 2]]}', r"\[True, 2\] is not a head"),
        ('{"alignment_heads_compact": [["1", 2]]}', "is not a head"),
        ('{"alignment_heads_compact": [[-1, 2]]}', r"\[-1, 2\] is not a head of 28 layers"),
        ('{"alignment_heads_compact": [[28, 2]]}', r"\[28, 2\] is not a head"),
        ('{"alignment_heads_compact": [[0, 16]]}', r"\[0, 16\] is not a head"),
        ('{"alignment_heads_compact": [[0, 1e999]]}', "is not a head"),
        ('{"alignment_heads_compact": [[3, 1], [3, 2], [3, 1]]}', r"\[3, 1\] is listed twice"),
        ('{"alignment_heads_compact": [[3, 1]], "num_layers": 12}', "'num_layers' is 12.*has 28"),
        ('{"alignment_heads_compact": [[3, 1]], "num_heads": null}', "'num_heads' is None"),
        ('{"alignment_heads_compact": [[3, 1]], "attention_timing": 1}', "'attention_timing'"),
        (
            '{"alignment_heads_compact": [[3, 1]], "attention_timing": {"end_trail": "x"}}',
            "'end_trail' cannot be 'x'",
        ),
    ],
)
def test_a_file_that_is_not_what_it_should_be(tmp_path: Path, content: str, message: str) -> None:
    for path, override in ((tmp_path / FILE, None), (tmp_path / "x.json", tmp_path / "x.json")):
        path.write_text(content)
        with pytest.raises(CheckpointError, match=message) as error:
            find_alignment_heads(tmp_path, configuration(), override)
        assert str(error.value).startswith(str(path))


def test_long_values_are_cut_short_in_messages(tmp_path: Path) -> None:
    write(tmp_path / FILE, ["x" * 10_000, 1])
    with pytest.raises(CheckpointError) as error:
        find_alignment_heads(tmp_path, configuration())
    assert len(str(error.value)) < 300 + len(str(tmp_path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.json"):
        find_alignment_heads(tmp_path, configuration(), tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"thinker_config": None},
        {"thinker_config": {"text_config": [], "audio_config": {}}},
        configuration(num_hidden_layers=0),
        configuration(num_attention_heads="16"),  # type: ignore[arg-type]
    ],
)
def test_a_configuration_without_sizes(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError):
        find_alignment_heads(tmp_path, config)
