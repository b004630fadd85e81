"""The page: its files alone, and in headless Chromium with a recording as the microphone."""

import contextlib
import itertools
import json
import os
import re
import shutil
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import KEY, Running, key_file, serving

import voxfast
from voxfast.audio import load_audio
from voxfast.serve.hub import Limits
from voxfast.serve.server import Settings
from voxfast.serve.site import OPEN_PATHS

AUDIO = Path(__file__).parent.parent / "examples" / "audio"
PAGE = Path(voxfast.__file__).parent / "serve" / "page"
COMMAND = "turn up and open window"


@pytest.fixture(scope="module")
def server(numbers: voxfast.Model) -> Iterator[Running]:
    with serving(numbers) as running:
        yield running


# -- The files


def test_every_file_is_served_and_loads_nothing_from_elsewhere(server: Running) -> None:
    assert {path.name for path in PAGE.iterdir()} == {
        path.rpartition("/")[2] or "index.html" for path in OPEN_PATHS
    }
    for path in OPEN_PATHS:
        status, body, headers = server.get(path)
        assert status == 200
        assert "charset=utf-8" in headers["content-type"] or path.endswith(".svg")
        assert headers["x-content-type-options"] == "nosniff"
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        links = set(re.findall(r"\b\w+://[\w./]+", body))
        assert links <= {"http://www.w3.org/2000/svg", "http://localhost"}
    html = (PAGE / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", html)
    for path in re.findall(r'(?:src|href)="([^#"]+)"', html):
        assert f"/{path}" in OPEN_PATHS


def test_what_the_page_asks_the_server(server: Running, numbers: voxfast.Model) -> None:
    status, about, _ = server.get("/page/about.json")
    assert (status, about["model"], about["delays_ms"]) == (200, numbers.name, [*numbers.delays_ms])
    assert about["languages"] == ["en"]


def test_every_field_has_a_name() -> None:
    html = (PAGE / "index.html").read_text()
    named = set(re.findall(r'<label for="([^"]+)"', html))
    for field, attributes in re.findall(r"<(input|select|textarea|meter)\b([^>]*)>", html):
        name = re.search(r'id="([^"]+)"', attributes)
        assert name, field
        assert name[1] in named or "aria-label" in attributes or " hidden" in attributes
    for name in re.findall(r'aria-(?:labelledby|describedby)="([^"]+)"', html):
        assert f'id="{name}"' in html


def test_colours_can_be_told_apart() -> None:
    css = (PAGE / "style.css").read_text()
    schemes = [dict(re.findall(r"--([\w-]+): (#\w{6});", part)) for part in css.split("@media")[:2]]
    assert all(len(scheme) == 8 for scheme in schemes)
    for scheme in schemes:
        for text, ground, least in [
            ("text", "ground", 7),
            ("faint", "ground", 4.5),  # what may still change
            ("text", "field", 7),
            ("faint", "field", 4.5),
            ("on-accent", "accent", 4.5),
            ("accent", "ground", 4.5),
            ("alert", "ground", 4.5),
            ("edge", "ground", 3),
        ]:
            assert contrast(scheme[text], scheme[ground]) >= least, (text, ground)


def contrast(first: str, second: str) -> float:
    """The contrast ratio of WCAG 2."""

    def luminance(colour: str) -> float:
        values = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


# -- In a browser


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser whose microphone plays command.flac, once."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    sound = tmp_path_factory.mktemp("microphone") / "command.wav"
    silence = np.zeros(16_000, np.float32)
    audio = np.concatenate([silence, load_audio(AUDIO / "command.flac"), silence])
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((audio * 32767).astype("<i2").tobytes())
    arguments = [
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={sound}%noloop",
    ]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")
    with playwright.sync_playwright() as started:
        if path is None and not Path(started.chromium.executable_path).exists():
            pytest.skip("there is no browser: neither chromium nor google-chrome nor playwright's")
        browser = started.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(chromium: Any, server: Running, **options: Any) -> Iterator[Any]:
    """The page in a fresh context; errors of its scripts fail the test."""
    with contextlib.closing(chromium.new_context(**options)) as context:
        page = context.new_page()
        page.set_default_timeout(30_000)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"http://localhost:{server.server.port}/")
        page.locator("#controls:visible, #key-form:visible").wait_for()
        try:
            yield page
        finally:
            assert errors == []


def finished(page: Any) -> None:
    page.get_by_role("status").get_by_text("Done.").wait_for()


def saved(page: Any, kind: str) -> str:
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Save as {kind}").click()
    return Path(download.value.path()).read_text()


WATCH = """node => {
    node.seen = [];
    new MutationObserver(() => node.seen.push(node.textContent)).observe(node, {childList: true});
}"""
LOUDEST = """meter => {
    meter.loudest = -60;
    const look = () => { meter.loudest = Math.max(meter.loudest, meter.value); };
    new MutationObserver(look).observe(meter, {attributes: true, childList: true});
}"""


STOP = """async () => {
    const { openMicrophone } = await import("/page/audio.js");
    const port = { postMessage: () => {} };
    window.AudioWorkletNode = class { port = port; };
    AudioNode.prototype.connect = () => {};
    const source = await openMicrophone();
    const send = (size, isLast) =>
        port.onmessage({ data: { pcm: new ArrayBuffer(size), peak: 0, isLast } });
    send(1, false);
    source.stop();
    send(2, false);
    send(3, true);
    const sizes = [];
    for await (const { pcm } of source.blocks()) sizes.push(pcm.byteLength);
    return sizes;
}"""


def test_blocks_that_are_on_their_way_at_the_end_are_sent(chromium: Any, server: Running) -> None:
    with opened(chromium, server, permissions=["microphone"]) as page:
        assert page.evaluate(STOP) == [1, 2, 3]


def test_the_microphone(chromium: Any, server: Running) -> None:
    with opened(chromium, server, permissions=["microphone"]) as page:
        record = page.get_by_role("button", name="Start microphone")
        record.wait_for()
        page.locator("#tentative").evaluate(WATCH)
        page.locator("#level").evaluate(LOUDEST)
        page.keyboard.press("Enter")  # the button has the focus
        page.get_by_role("status").get_by_text("Listening.").wait_for()
        page.locator("#words").get_by_text("window").wait_for()
        assert page.locator("#level").evaluate("meter => meter.loudest") > -60
        page.get_by_role("button", name="Stop").click()
        finished(page)
        assert page.locator("#words").inner_text().split() == COMMAND.split()
        *seen, last = page.locator("#tentative").evaluate("node => node.seen")
        assert any(text.strip() and COMMAND.find(text.strip()) > 0 for text in seen)
        assert last == ""
        assert page.locator("#spoken").inner_text()
        assert float(page.locator("#heard").inner_text().split()[0]) > 2
        assert float(page.locator("#lag").inner_text().split()[0]) < 2
        assert record.is_enabled()


def test_a_file_and_what_is_saved(chromium: Any, server: Running, numbers: voxfast.Model) -> None:
    audio = load_audio(AUDIO / "decimal.flac")
    with numbers.session(endpoint_ms=500) as session:
        expected = [*session.feed(audio), *session.finish()]
    permissions = ["clipboard-read", "clipboard-write"]
    with opened(chromium, server, permissions=permissions, accept_downloads=True) as page:
        page.locator("#file").set_input_files(AUDIO / "decimal.flac")
        finished(page)
        transcript = json.loads(saved(page, "JSON"))
        assert transcript["words"] == [
            {
                "text": word.text,
                "start": round(word.start, 3),
                "end": round(word.end, 3),
                "probability": round(word.probability or 0, 4),
            }
            for word in expected
        ]
        assert transcript["text"] == "".join(word.text for word in expected).strip()
        assert transcript["source"] == "decimal.flac"
        assert transcript["complete"] is True
        assert transcript["duration"] == pytest.approx(len(audio) / 16_000, abs=1e-3)
        assert sum(segment["words"] for segment in transcript["segments"]) == len(expected)

        text = saved(page, "text")
        assert text.split() == transcript["text"].split()
        page.get_by_role("button", name="Copy").click()
        page.get_by_role("status").get_by_text("Copied.").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == text

        cues = saved(page, "SRT").strip().split("\n\n")
        lines = [line for cue in cues for line in cue.splitlines()[2:]]
        assert " ".join(lines).split() == text.split()
        spans = [seconds(cue) for cue in cues]
        assert all(0 < end - start <= 7 for start, end in spans)
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))

        assert reached_by_keyboard(page) == [
            "record", "choose", "SUMMARY", "delay", "language", "vocabulary",
            "transcript", "copy", "save-txt", "save-srt", "save-json", "clear", "BODY",
        ]  # fmt: skip
        page.get_by_role("button", name="Clear").click()
        assert page.locator("#words").inner_text() == ""
        assert page.get_by_role("button", name="Copy").is_disabled()


def reached_by_keyboard(page: Any) -> list[str]:
    """What has the focus, tab by tab, behind the link that skips to the transcript."""
    page.locator("summary").press("Enter")
    page.locator(".skip").focus()
    reached = [""]
    while reached[-1] != "BODY" and len(reached) < 30:
        page.keyboard.press("Tab")
        focused = page.evaluate_handle("document.activeElement")
        reached.append(focused.evaluate("field => field.id || field.tagName"))
    return reached[1:]


def seconds(cue: str) -> list[float]:
    """The start and end of a cue of SubRip."""
    times = re.findall(r"(\d\d):(\d\d):(\d\d),(\d{3})", cue)
    return [
        int(hours) * 3600 + int(minutes) * 60 + int(whole) + int(thousandths) / 1000
        for hours, minutes, whole, thousandths in times
    ]


def test_a_second_recording_goes_on_behind_the_first(chromium: Any, server: Running) -> None:
    with opened(chromium, server, accept_downloads=True) as page:
        for _ in range(2):
            page.locator("#file").set_input_files(AUDIO / "command.flac")
            page.get_by_role("button", name="Stop").wait_for()
            finished(page)
        words = json.loads(saved(page, "JSON"))["words"]
        assert "".join(word["text"] for word in words).split() == COMMAND.split() * 2
        starts = [word["start"] for word in words]
        assert starts == sorted(starts)


def test_a_file_that_is_no_audio(chromium: Any, server: Running) -> None:
    with opened(chromium, server) as page:
        page.locator("#file").set_input_files(AUDIO / "README.md")
        page.get_by_role("alert").get_by_text("cannot decode README.md").wait_for()
        assert page.get_by_role("button", name="Start microphone").is_enabled()


def test_a_microphone_that_is_not_allowed(chromium: Any, server: Running) -> None:
    with opened(chromium, server, permissions=[]) as page:
        page.get_by_role("button", name="Start microphone").click()
        page.get_by_role("alert").get_by_text("not allowed to use the microphone").wait_for()


def test_a_key(chromium: Any, numbers: voxfast.Model, tmp_path: Path) -> None:
    settings = Settings(port=0, api_key_file=key_file(tmp_path))
    with serving(numbers, settings=settings) as server, opened(chromium, server) as page:
        field = page.get_by_label("Key of this server")
        field.wait_for()
        assert not page.get_by_role("button", name="Start microphone").is_visible()
        page.keyboard.type("wrong")  # the field has the focus
        page.keyboard.press("Enter")
        page.get_by_role("alert").get_by_text("does not know this key").wait_for()
        field.fill(KEY)
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Start microphone").wait_for()
        page.locator("#file").set_input_files(AUDIO / "command.flac")
        finished(page)
        assert page.locator("#words").inner_text().split() == COMMAND.split()


def test_a_server_that_ends(chromium: Any, numbers: voxfast.Model) -> None:
    options = {"permissions": ["microphone"], "accept_downloads": True}
    with serving(numbers) as server, opened(chromium, server, **options) as page:
        page.get_by_role("button", name="Start microphone").click()
        page.locator("#words").get_by_text("up").wait_for()
        server.server.stop()
        page.get_by_role("alert").get_by_text("The server ended the connection").wait_for()
        assert json.loads(saved(page, "JSON"))["complete"] is False


def test_what_the_server_refuses_is_shown(chromium: Any, numbers: voxfast.Model) -> None:
    with serving(numbers, Limits(sessions=0)) as server, opened(chromium, server) as page:
        page.locator("#file").set_input_files(AUDIO / "command.flac")
        page.get_by_role("alert").get_by_text("it may be full").wait_for()
    with serving(numbers, Limits(audio_seconds=1.0)) as server, opened(chromium, server) as page:
        page.locator("#file").set_input_files(AUDIO / "command.flac")
        page.get_by_role("alert").get_by_text("more than 1 s of audio").wait_for()
