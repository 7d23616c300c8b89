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

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the browser test needs playwright: pip install playwright"
)
NAMES = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
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
    "voila", "05_classifier_panel.ipynb", "--no-browser", "--Voila.ip=127.0.0.1",
]  # fmt: skip
START, CLICK = 60, 20  # seconds to wait: for a server or a kernel, for anything else


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A copy of the notebooks, and an environment with models of two epochs and no settings."""
    folder = tmp_path_factory.mktemp("browser")
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
    command = [sys.executable, "-m", "ltkd", "student", "digits-lt", "--epochs", "2"]
    subprocess.run(command, env=kept | own, check=True, timeout=120)
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
            urllib.request.urlopen(f"{address}static/no-such-file", timeout=5)
        except urllib.error.HTTPError:
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


def classify(panel, model: str) -> str:
    """Choose the model, click, and return the answer."""
    panel.get_by_role("button", name=model).click()
    panel.get_by_role("button", name="Classify").click()
    status = panel.get_by_role("status").filter(has_text=model)
    status.wait_for()
    return status.inner_text()


def upload(page, panel, file: Path) -> None:
    with page.expect_file_chooser() as chooser:
        panel.get_by_role("button", name="Choose a file").click()
    chooser.value.set_files(file)


def test_the_panel_in_jupyterlab(place, browser):
    folder = place[0]
    Image.linear_gradient("L").resize((60, 40)).save(folder / "grey.png")
    (folder / "text.png").write_text("These are only words.")
    (folder / "large.png").write_bytes(bytes(12 * 2**20))
    with (
        serving(JUPYTERLAB, "ServerApp.port", place) as address,
        opened(
            browser, f"{address}lab/tree/05_classifier_panel.ipynb?token={TOKEN}", 1280, "lab"
        ) as page,
    ):
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=START * 1000)
        menu(page, "Run", "Run All Cells")
        panel = page.locator(".ltkd-panel")
        panel.wait_for(timeout=START * 1000)
        panel.scroll_into_view_if_needed()

        panel.locator("select").select_option("3-test-23")
        for model in "Teacher Model", "Student Model":
            assert "%" in classify(panel, model)
        page.screenshot(path=SCREENSHOTS / "lab-light.png")
        menu(page, "Settings", "Theme", "JupyterLab Dark")
        page.locator("body[data-jp-theme-light=false]").wait_for(state="attached")
        page.locator("#jupyterlab-splash").wait_for(state="detached")
        page.screenshot(path=SCREENSHOTS / "lab-dark.png")

        panel.get_by_role("button", name="Upload an image").click()
        upload(page, panel, folder / "grey.png")
        panel.get_by_text("60 × 40 pixels").wait_for()
        assert "%" in classify(panel, "Teacher Model")
        page.screenshot(path=SCREENSHOTS / "lab-upload.png")
        upload(page, panel, folder / "text.png")
        panel.get_by_text("This is not an image that can be read").wait_for()
        playwright.expect(panel.get_by_role("button", name="Classify")).to_be_disabled()
        page.screenshot(path=SCREENSHOTS / "lab-refused.png")
        upload(page, panel, folder / "large.png")
        panel.get_by_text("The file is larger than 8 MiB.").wait_for()
        panel.get_by_role("button", name="Predefined image").click()
        assert "%" in classify(panel, "Student Model")


def test_the_panel_as_a_page_without_code(place, browser):
    with (
        serving(VOILA, "Voila.port", place) as address,
        opened(browser, address, 800, "voila") as page,
    ):
        panel = page.locator(".ltkd-panel")
        panel.wait_for(timeout=START * 1000)
        panel.locator("select").select_option("8-test-28")
        for model in "Teacher Model", "Student Model":
            assert "%" in classify(panel, model)
        page.screenshot(path=SCREENSHOTS / "voila.png", full_page=True)
        text = page.inner_text("body")
        assert "import " not in text and "Panel(experiment)" not in text
        assert page.evaluate("document.documentElement.scrollWidth") <= 800
