"""A day's load on the panel's page: python tests/load.py [USERS] [MINUTES]; 10 and 10 if not given.

Serves notebook 5 as `make app` does, opens a page for each user in Chromium, and lets all of them
classify pictures at once; at the end it kills the browser of one user more and waits for that
kernel to be culled. Prints errors, latency and memory; tests/README.md has the results.
"""

import asyncio
import contextlib
import random
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import psutil
import test_browser as browser
from playwright.async_api import Page, async_playwright, expect
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
THINKING = 1.0, 5.0  # seconds between two clicks of one user
CULLING = 1_200  # seconds after which a kernel without a page must have ended long ago


def server_options() -> list[str]:
    """What `make app` gives to Voilà; `--token` alone takes the token of the environment."""
    recipe = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "app"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    line = next(line for line in recipe.splitlines() if "voila" in line)
    return [word for word in shlex.split(line) if word.startswith("--")]


def memory(server: psutil.Process) -> tuple[float, int]:
    """MiB of the server and its kernels (shared pages counted in parts), and their number."""
    total, number = 0, 0
    for process in [server, *server.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss
            number += 1
    return total / 2**20, number


def serving_on(address: str) -> psutil.Process:
    option = f"--Voila.port={urllib.parse.urlsplit(address).port}"
    return next(p for p in psutil.process_iter(["cmdline"]) if option in (p.info["cmdline"] or []))


async def user(page: Page, end: float, chance: random.Random, waits: list, errors: list) -> None:
    """Choose a picture and a model, classify, look, and again."""
    panel = page.locator(".ltkd-panel")
    thumbnails = panel.locator(".ltkd-gallery button")
    number, chosen = await thumbnails.count(), 0  # the panel opens on the first picture
    while time.monotonic() < end:
        try:
            # another one: a click on the chosen picture changes nothing, so its result stays
            chosen = (chosen + chance.randrange(1, number)) % number
            await thumbnails.nth(chosen).click()
            await expect(panel.get_by_role("status")).to_have_count(0)  # the old result is gone
            model = chance.choice(["Teacher Model", "Student Model", "Compare both"])
            await panel.get_by_role("button", name=model).click()
            start = time.monotonic()
            await panel.get_by_role("button", name="Classify").click()
            answers = 2 if model == "Compare both" else 1
            await expect(panel.get_by_role("status")).to_have_count(answers)
            await expect(panel.get_by_text("evidence for").first).to_be_visible()
            waits.append(time.monotonic() - start)
        except Exception as error:  # whatever a user would see
            errors.append(str(error).partition("\n")[0])
        await asyncio.sleep(chance.uniform(*THINKING))


async def visit(address: str, users: int, minutes: float, server: psutil.Process) -> None:
    waits, errors = [], []
    async with async_playwright() as driver:
        chromium = await driver.chromium.launch(
            executable_path=browser.CHROMIUM, args=browser.FLAGS
        )
        pages = [await (await chromium.new_context()).new_page() for _ in range(users)]
        expect.set_options(timeout=60_000)
        for page in pages:
            page.set_default_timeout(60_000)
            page.on("pageerror", lambda error: errors.append(f"page: {error}"))
        start = time.monotonic()
        await asyncio.gather(*(page.goto(address, timeout=300_000) for page in pages))
        for page in pages:
            await page.locator(".ltkd-panel").wait_for(timeout=300_000)
        print(f"{users} pages are there after {time.monotonic() - start:.0f} s", flush=True)
        end = time.monotonic() + 60 * minutes
        work = [
            asyncio.create_task(user(page, end, random.Random(i), waits, errors))
            for i, page in enumerate(pages)
        ]
        while time.monotonic() < end:
            await asyncio.sleep(min(60, max(0, end - time.monotonic())))
            megabytes, number = memory(server)
            print(f"{len(waits)} answers, {len(errors)} errors, {megabytes:,.0f} MiB in {number} "
                  f"processes", flush=True)  # fmt: skip
        await asyncio.gather(*work)
        await chromium.close()
    waits.sort()
    shares = {name: waits[int(share * (len(waits) - 1))] for name, share in
              {"median": 0.5, "95 %": 0.95, "longest": 1}.items()}  # fmt: skip
    print(f"{len(waits)} answers, {len(errors)} errors {sorted(set(errors))}; seconds: "
          + ", ".join(f"{name} {value:.2f}" for name, value in shares.items()))  # fmt: skip


def abandon(address: str, server: psutil.Process) -> None:
    """A browser that is killed cannot say goodbye: print how long its kernel stays."""
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser.CHROMIUM, args=browser.FLAGS)
        page = chromium.new_page()
        page.goto(address, timeout=300_000)
        page.locator(".ltkd-panel").wait_for(timeout=300_000)
        print(f"one page more: {memory(server)[1]} processes; its browser is killed", flush=True)
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "chrom" in process.name():
                    process.kill()
    start = time.monotonic()
    while memory(server)[1] > 1 and time.monotonic() - start < CULLING:
        time.sleep(5)
    print(f"after {time.monotonic() - start:.0f} s: {memory(server)[1]} process")


def main(users: int = 10, minutes: float = 10) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = browser.prepared(Path(folder))
        command = ["voila", "05_classifier_panel.ipynb", "--no-browser", *server_options()]
        with browser.serving(command, "Voila.port", place) as address:
            try:
                with urllib.request.urlopen(address, timeout=60) as page:
                    if "/login" not in page.url:
                        print("ANSWERED WITHOUT A TOKEN")
            except urllib.error.HTTPError as error:
                print(f"without a token: {error.code}")
            log = Path(folder) / "voila.log"
            server = serving_on(address)
            asyncio.run(visit(f"{address}?token={browser.TOKEN}", users, minutes, server))
            abandon(f"{address}?token={browser.TOKEN}", server)
            print("\n".join(line for line in log.read_text().splitlines() if "rror" in line)[:2000])


if __name__ == "__main__":
    main(*(kind(a) for kind, a in zip((int, float), sys.argv[1:], strict=False)))
