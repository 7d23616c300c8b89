"""The panel in a real browser: in JupyterLab, and as Voilà's page without code.

Needs Debian's or anyone's Chromium and the Python package playwright (which brings no browser of
its own here). Screenshots go to tests/screenshots/, which git ignores.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from ltkd.datasets import build
from ltkd.experiments import Experiment
from ltkd.runs import train

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the browser test needs playwright: pip install playwright"
)
NAMES = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
expect = playwright.expect
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="the browser test needs Chromium on the PATH: apt install chromium"
)

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
SCREENSHOTS = Path(__file__).with_name("screenshots")
TOKEN = "only-for-this-test"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
JUPYTERLAB = [
    "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
    "--ServerApp.port_retries=0", "--LabApp.extension_manager=readonly",
]  # fmt: skip
VOILA = [
    "voila", "05_classifier_panel.ipynb", "--no-browser", "--Voila.ip=127.0.0.1", "--token",
]  # fmt: skip
START, CLICK = 60, 20  # seconds to wait: for a server or a kernel, for anything else


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    return prepared(tmp_path_factory.mktemp("browser"))


def prepared(folder: Path) -> tuple[Path, dict[str, str]]:
    """A copy of the notebooks, and an environment with models of two epochs and no settings."""
    shutil.copytree(NOTEBOOKS, folder / "notebooks")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LTKD_", "JUPYTER"))}
    own = {f"JUPYTER_{k}_DIR": str(folder / k.lower()) for k in ("CONFIG", "DATA", "RUNTIME")}
    own |= {f"JUPYTERLAB_{k}_DIR": str(folder / k.lower()) for k in ("SETTINGS", "WORKSPACES")}
    own |= {"IPYTHONDIR": str(folder / "ipython"), "JUPYTER_TOKEN": TOKEN}
    own |= {"LTKD_HOME": str(folder / "home"), "LTKD_EPOCHS": "2", "OMP_NUM_THREADS": "1"}
    no_news = folder / "settings" / "@jupyterlab" / "apputils-extension"
    no_news.mkdir(parents=True)
    (no_news / "notification.jupyterlab-settings").write_text(
        json.dumps({"fetchNews": "false", "checkForUpdates": False})
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTKD_HOME", own["LTKD_HOME"])
        experiment = Experiment.choose("digits-lt", epochs=2)
        train(experiment, build(experiment), "student")
    return folder, kept | own


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@contextlib.contextmanager
def serving(module: list[str], port_option: str, place):
    """Run a server on a free port of this machine; yield its address; kill it and its kernels."""
    folder, environment = place
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / f"{module[0]}.log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", *module, f"--{port_option}={port}"],
            cwd=folder / "notebooks",
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield wait_for(f"http://127.0.0.1:{port}/", server, log)
    finally:
        stop(server)


def wait_for(address: str, server: subprocess.Popen, log: Path) -> str:
    """Return the address as soon as something answers there."""
    end = time.monotonic() + START
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}static/no-such-file", timeout=5).close()
            return address  # the login page
        except urllib.error.HTTPError as error:
            error.close()
            return address
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"{address} does not answer:\n{log.read_text()[-2000:]}")


def stop(server: subprocess.Popen) -> None:
    """Ask the server to end its kernels and itself; kill the whole group if it does not."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.terminate()
        server.wait(5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait(5)


@contextlib.contextmanager
def opened(browser, address: str, width: int, name: str):
    """A page of that width; where the test fails, its picture is kept."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    page.set_default_timeout(CLICK * 1000)
    expect.set_options(timeout=CLICK * 1000)
    try:
        page.goto(address, timeout=START * 1000)
        yield page
    except BaseException:
        page.screenshot(path=SCREENSHOTS / f"{name}-failed.png")
        raise
    finally:
        context.close()


def menu(page, *path: str) -> None:
    """Click through JupyterLab's menus."""
    for name in path:
        labels = page.locator(".lm-MenuBar-itemLabel, .lm-Menu-itemLabel")
        labels.filter(has_text=re.compile(f"^{name}$")).click()


def choose(panel, caption: str, shown: str) -> None:
    """Click a thumbnail and wait until its preview is there; the old result is gone by then."""
    thumbnail = panel.locator(".ltkd-gallery button").filter(has_text=re.compile(f"^{caption}$"))
    thumbnail.click()
    expect(panel.locator(".ltkd-preview")).to_contain_text(shown)


def classify(panel, model: str, words: str) -> None:
    """Choose the model, click, and wait for the answer."""
    panel.get_by_role("button", name=model).click()
    panel.get_by_role("button", name="Classify").click()
    status = panel.get_by_role("status").filter(has_text=words).last
    expect(status).to_contain_text("% probability")
    expect(status.locator("tbody tr")).to_have_count(5)
    expect(panel.get_by_text("evidence for").first).to_be_visible()


def upload(page, panel, *files: Path) -> None:
    with page.expect_file_chooser() as chooser:
        panel.get_by_role("button", name="Choose files").click()
    chooser.value.set_files(files)


def check_pictures(panel) -> None:
    """Every picture in the panel has arrived and has a text, the logo's widget apart."""
    for picture in panel.locator("figure img").all():
        assert picture.get_attribute("alt")
        assert picture.evaluate("image => image.complete && image.naturalWidth > 0")


def no_wider_than(page, width: int) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert (
        page.locator(".ltkd-panel").evaluate("panel => panel.scrollWidth - panel.clientWidth") <= 0
    )


@pytest.fixture(scope="module")
def files(place) -> dict[str, Path]:
    """What is uploaded: a sound picture, words, and 30 MiB."""
    names = {name: place[0] / name for name in ("grey.png", "text.png", "large.png")}
    Image.linear_gradient("L").resize((60, 40)).save(names["grey.png"])
    names["text.png"].write_text("These are only words.")
    names["large.png"].write_bytes(bytes(30 * 2**20))
    return names


def scroll_up_to(page, panel) -> None:
    """After "Run All Cells" the last cell is shown; older JupyterLabs hide what lies far above."""
    page.locator(".jp-Notebook").hover()
    for _ in range(100):
        if panel.is_visible():
            break
        page.mouse.wheel(0, -300)
        page.wait_for_timeout(100)
    panel.scroll_into_view_if_needed()


def test_the_panel_in_jupyterlab(place, browser, files):
    with (
        serving(JUPYTERLAB, "ServerApp.port", place) as address,
        opened(
            browser, f"{address}lab/tree/05_classifier_panel.ipynb?token={TOKEN}", 1280, "lab"
        ) as page,
    ):
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=START * 1000)
        menu(page, "Run", "Run All Cells")
        panel = page.locator(".ltkd-panel")
        panel.wait_for(state="attached", timeout=START * 1000)
        scroll_up_to(page, panel)
        check_predefined(page, panel)
        menu(page, "Settings", "Theme", "JupyterLab Dark")
        page.locator("body[data-jp-theme-light=false]").wait_for(state="attached")
        page.locator("#jupyterlab-splash").wait_for(state="detached")
        page.screenshot(path=SCREENSHOTS / "lab-dark.png")
        check_uploads(page, panel, files)
        page.screenshot(path=SCREENSHOTS / "lab-uploads.png")


def test_the_panel_as_a_page_without_code_in_two_tabs(place, browser, files):
    with (
        serving(VOILA, "Voila.port", place) as address,
        opened(browser, f"{address}?token={TOKEN}", 1280, "voila-light") as first,
        opened(browser, f"{address}?theme=dark&token={TOKEN}", 800, "voila-dark") as second,
    ):
        with urllib.request.urlopen(address, timeout=START) as asked:
            assert "/login" in asked.url  # nothing without the token
        for page in first, second:
            page.locator(".ltkd-panel").wait_for(timeout=START * 1000)
        for page in first, second:
            check_predefined(page, page.locator(".ltkd-panel"))
        check_uploads(first, first.locator(".ltkd-panel"), files)
        first.screenshot(path=SCREENSHOTS / "voila-light.png", full_page=True)
        second.screenshot(path=SCREENSHOTS / "voila-dark.png", full_page=True)
        text = second.inner_text("body")
        for hidden in "import ", "Panel(experiment)", "You will learn", "Exercises":
            assert hidden not in text
        no_wider_than(first, 1280)
        no_wider_than(second, 800)


def check_predefined(page, panel) -> None:
    """Pick a predefined image, ask each model and both, choose another class, use the keyboard."""
    choose(panel, "3 medium\N{NON-BREAKING HYPHEN}shot", "3-test-23")
    for model in "Teacher Model", "Student Model":
        classify(panel, model, model)
    panel.get_by_label("Evidence for class").select_option("7")
    expect(panel.get_by_text("Student Model: evidence for 7")).to_be_visible()
    expect(panel.get_by_text("Distillation weight", exact=True).first).to_be_visible()
    check_pictures(panel)
    panel.get_by_role("button", name="Compare both").focus()
    page.keyboard.press("Enter")
    expect(panel.get_by_role("status")).to_have_count(0)  # the old result is gone
    panel.get_by_role("button", name="Classify").focus()
    page.keyboard.press("Space")
    expect(panel.get_by_role("status")).to_have_count(2)
    expect(panel.get_by_text(re.compile("They (agree|differ)"))).to_be_visible()
    panel.get_by_role("button", name="Example: Teacher wrong, Student right").click()
    # Models of two epochs may have no such image.
    expect(panel.get_by_text(re.compile("They differ|None is known")).first).to_be_visible()


def check_uploads(page, panel, files: dict[str, Path]) -> None:
    """Upload a sound file, a bad one, a large one, then all of them for the table."""
    button = panel.get_by_role("button", name="Classify")
    panel.get_by_role("button", name="Upload an image").click()
    expect(panel.get_by_text("No file yet.")).to_be_visible()
    upload(page, panel, files["grey.png"])
    expect(panel.get_by_text("60 × 40 pixels")).to_be_visible()
    classify(panel, "Teacher Model", "Teacher Model")
    upload(page, panel, files["text.png"])
    expect(panel.get_by_text("This is not an image that can be read")).to_be_visible()
    expect(button).to_be_disabled()
    upload(page, panel, files["large.png"])
    expect(panel.get_by_text("The file is larger than 8 MiB.")).to_be_visible()
    upload(page, panel, *files.values())
    expect(panel.get_by_text("60 × 40 pixels")).to_be_visible()
    expect(button).to_be_enabled()
    classify(panel, "Student Model", "Student Model")
    expect(panel.get_by_text("All 3 uploaded files")).to_be_visible()
    with page.expect_download() as download:
        panel.get_by_role("link", name="Download the table").click()
    lines = Path(download.value.path()).read_text("utf-8-sig").splitlines()
    assert [line.partition(",")[0] for line in lines] == ["file", *files]
