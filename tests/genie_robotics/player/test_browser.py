"""The page in a real browser: what it shows, and what it offers to assistive technology."""

import itertools
import json
import shutil
import time

import cv2
import numpy as np
import pytest

from genie_robotics import Genie
from genie_robotics.labeling.code_meanings import code_meanings
from genie_robotics.player.saving import encode_video
from genie_robotics.player.starts import bundled_starts, simulated_starts
from genie_robotics.pretrained import locate

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: `make test` installs it where it is root")
PIXELS = """(id) => {
  const canvas = document.getElementById(id);
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return [canvas.height, canvas.width, Array.from(data)];
}"""
PREVIEWS = """() => [...document.querySelectorAll("#actions canvas")].map((canvas) =>
  Array.from(canvas.getContext("2d").getImageData(0, 0, 64, 64).data))"""
FOCUSED = """document.activeElement.getAttribute('aria-label') || document.activeElement.id
  || document.activeElement.textContent"""
LOADED = "() => document.images.length > 0 && [...document.images].every((image) => image.complete)"
UNNAMED = """() => [...document.querySelectorAll("button, input")].filter((element) =>
  !element.textContent.trim() && !element.getAttribute("aria-label") && !element.labels?.length).length"""


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def world(serve):
    genie = Genie.from_pretrained("nano-tabletop")
    names = ["up", "right", "left", "back", "gripper moving", "down", "still", "forward"]
    meanings = code_meanings(locate("nano-tabletop"), 8)
    assert [meaning.name for meaning in meanings] == names
    size = genie.config.image_size
    return serve(genie=genie, given=[*bundled_starts(size, size), *simulated_starts(size, 1)], names=meanings)


@pytest.fixture
def page(chromium, world):
    page = chromium.new_page(viewport={"width": 1200, "height": 850}, accept_downloads=True)
    complaints = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(world.page)
    page.wait_for_selector("#dream[aria-label^='Step 0,']")
    until(page, lambda: page.evaluate(LOADED))
    yield page
    page.close()
    assert complaints == []


def until(page, happened, seconds: float = 30) -> None:
    """The page's policy forbids `wait_for_function`, which evaluates in it."""
    ended = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < ended, "it did not happen in time"
        page.wait_for_timeout(50)


def shown(page, canvas: str = "dream") -> np.ndarray:
    height, width, values = page.evaluate(PIXELS, canvas)
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


def at_step(page, step: int) -> np.ndarray:
    page.wait_for_selector(f"#dream[aria-label^='Step {step},']")
    return shown(page)


def press(page, key: str, step: int) -> np.ndarray:
    page.keyboard.press(key)
    return at_step(page, step)


def test_keys_play_the_world_and_undo_takes_back(page, world):
    dream = world.player.genie.start(world.player.starts[0].frame)
    np.testing.assert_array_equal(at_step(page, 0), dream.frame.numpy())
    frames = [shown(page)]
    for step, key in enumerate("2223", 1):
        frames.append(press(page, key, step))
        np.testing.assert_array_equal(frames[-1], dream.step(int(key) - 1).numpy())
    assert all(np.abs(a.astype(int) - b).mean() > 0.5 for a, b in itertools.pairwise(frames))
    assert page.locator("#actions button.now").inner_text().split() == ["3", "2", "left"]
    np.testing.assert_array_equal(press(page, "z", 3), frames[3])
    page.click("#undo")
    np.testing.assert_array_equal(at_step(page, 2), frames[2])
    np.testing.assert_array_equal(press(page, "r", 0), frames[0])
    assert page.locator("#undo").is_disabled()


def test_actions_are_named_and_shown_before_they_are_played(page):
    page.wait_for_selector("#actions button:nth-child(8) canvas[width='64']")
    previews = [np.array(values, np.uint8).reshape(64, 64, 4)[..., :3] for values in page.evaluate(PREVIEWS)]
    assert len({preview.tobytes() for preview in previews}) == 8
    page.get_by_role("button", name="Code 1: right").click()
    frame = at_step(page, 1).astype(int)
    assert np.abs(frame - previews[1]).mean() < 0.5, "the preview is the next frame"
    assert np.abs(frame - previews[2]).mean() > 0.5


def test_branch_sequence_and_saved_clip(page, tmp_path):
    kept = press(page, "1", 1)
    page.keyboard.press("b")
    page.wait_for_selector("#branches button")
    page.fill("#codes", "7 7 3")
    page.click("#sequence button")
    at_step(page, 4)
    page.click("#branches button")
    np.testing.assert_array_equal(at_step(page, 1), kept)
    page.keyboard.press("6")
    at_step(page, 2)
    saved = []
    page.on("download", lambda entry: saved.append(entry))
    with page.expect_download():
        page.click("[data-save=mp4]")
    page.wait_for_selector("#status:has-text('Saved')")
    until(page, lambda: len(saved) == 2)
    assert sorted(entry.suggested_filename for entry in saved) == ["dream.json", "dream.mp4"]
    for entry in saved:
        entry.save_as(tmp_path / entry.suggested_filename)
    assert json.loads((tmp_path / "dream.json").read_text())["codes"] == [0, 5]
    assert (tmp_path / "dream.mp4").stat().st_size > 1000


def test_a_picture_and_a_clip_are_uploaded(page, tmp_path, world):
    drawing = np.full((300, 200, 3), 255, np.uint8)
    cv2.circle(drawing, (100, 150), 60, (0, 0, 255), -1)
    cv2.imwrite(str(tmp_path / "drawing.png"), drawing)
    page.set_input_files("#picture", tmp_path / "drawing.png")
    page.wait_for_selector("#dream[aria-label*='your picture']")
    frame = shown(page).astype(int)
    assert frame[:, :6].mean() < 80, "bars on both sides of a tall picture"
    assert frame[28:36, 28:36, 0].mean() > frame[28:36, 28:36, 2].mean() + 40, "something red in the middle"
    (tmp_path / "note.png").write_text("no picture")
    page.set_input_files("#picture", tmp_path / "note.png")
    page.wait_for_selector("#status.error")
    assert "cannot be read as a picture" in page.inner_text("#status")
    start = world.player.starts[1].frame
    dream = world.player.genie.generate(start[None, None], [[1, 1, 7, 7]])[0].numpy()
    (tmp_path / "clip.mp4").write_bytes(encode_video(np.concatenate([start[None], dream]), "mp4"))
    page.set_input_files("#clip", tmp_path / "clip.mp4")
    at_step(page, 4)
    assert len(page.input_value("#codes").split()) == 4


def test_typing_in_a_field_plays_no_action(page):
    page.click("#codes")
    page.keyboard.type("123")
    page.wait_for_timeout(300)
    assert "step 0" in page.inner_text("#figures")
    page.fill("#codes", "1 8")
    page.keyboard.press("Enter")
    assert "Codes must be 0 to 7" in page.inner_text("#status")


def test_on_a_phone_the_page_fits_and_all_controls_can_be_reached_by_keyboard(page):
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    reached = set()
    for _ in range(45):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(FOCUSED))
    assert {"Code 0: up, key 1", "Code 7: forward, key 8", "codes", "picture"} <= reached
    assert page.evaluate(UNNAMED) == 0


def test_the_simulator_is_shown_next_to_the_dream(page):
    assert page.locator("#simulated").is_hidden()
    page.get_by_role("button", name="simulated table 1").click()
    page.wait_for_selector("#simulated:not([hidden])")
    page.wait_for_selector("#dream[aria-label*='simulated table 1']")
    assert "0.0 cm apart" in page.inner_text("#error-now")
    before, simulated_before = shown(page), shown(page, "simulated")
    after = press(page, "3", 1)
    assert np.abs(after.astype(int) - before).mean() > 0.5
    assert np.abs(shown(page, "simulated").astype(int) - simulated_before).mean() > 0.5
    assert "cm apart" in page.inner_text("#error-now")
    assert page.locator("#error polyline").count() == 1
    press(page, "z", 0)
    np.testing.assert_array_equal(shown(page, "simulated"), simulated_before)
    page.get_by_role("button", name="blue table").click()
    page.wait_for_selector("#simulated", state="hidden")


def test_messages_are_dropped_while_the_connection_closes(page):
    """The fixture `page` checks that the console shows no error, before the page knows that the server ended."""
    page.evaluate("""() => {
      socket.close();
      byId("branch").click();
      document.querySelector("[data-save]").click();
      send({ type: "upload", kind: "image" }, new ArrayBuffer(8));
    }""")
    page.wait_for_selector("#status.error")


def test_the_page_shows_that_the_server_ended(page, world):
    world.server.should_exit = True
    page.wait_for_selector("#status.error")
    assert "ended" in page.inner_text("#status")
    assert page.locator("#actions button").first.is_disabled()
