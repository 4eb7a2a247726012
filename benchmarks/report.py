"""The report's pages, measured in Chromium: size, time to load, time to filter, on this run and on 100,000 attempts;
and the two pictures of the README.

    python -m benchmarks.report      # needs report/ (make) and Chromium

Writes benchmarks/results/report.json and docs/images/{report,attempts}.png.
"""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from benchmarks.commit import commit
from stages.run.manifest import device
from tests.report.finished import finished
from whetstone.report import run as runs

REPORT, IMAGES, OUT = Path("report").resolve(), Path("docs/images"), Path("benchmarks/results/report.json")
ROUNDS = 5
FILTER = """async box => {
    const began = performance.now();
    box.click();
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    return performance.now() - began;
}"""


def size(folder: Path, pattern: str) -> int:
    return sum(file.stat().st_size for file in folder.glob(pattern))


def viewer(browser: Browser, folder: Path) -> dict[str, Any]:
    """Milliseconds to load (from navigation to the first attempt's text) and to filter (from the click to the second
    frame after it), medians over rounds; the longest filter too."""
    loads, filters, total = [], [], 0
    for _ in range(ROUNDS):
        page = browser.new_page()
        page.goto(f"file://{folder}/attempts.html")
        page.wait_for_selector("#detail .sheet")
        loads.append(page.evaluate("performance.now()"))
        total = int(page.text_content("#found").split(" of ")[1].replace(",", ""))
        for box in page.locator("#facets fieldset:not(:last-child) label:not([hidden]) input").all()[:12]:
            filters.append(box.evaluate(FILTER))
        page.close()
    return {
        "attempts": total,
        "load_ms": round(median(loads)),
        "filter_ms": round(median(filters)),
        "filter_ms_longest": round(max(filters)),
        "bytes": size(folder, "attempts/*.js") + size(folder, "attempts.html"),
    }


def picture(browser: Browser, name: str, address: str, scheme: str, height: int) -> None:
    page = browser.new_context(viewport={"width": 1200, "height": height}, color_scheme=scheme).new_page()
    page.goto(f"file://{REPORT}/{address}")
    page.wait_for_selector(".chart svg path, #detail .sheet")
    page.wait_for_timeout(1000)
    page.screenshot(path=IMAGES / f"{name}.png")


def measured(say: Callable[[str], None] = print) -> dict[str, Any]:
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        run = finished(Path(folder), train=11_100, test=200, samples=2)
        large = Path(folder) / "report"
        runs.write(run, runs.results(run), large)
        found = {
            "machine": device(),
            "chromium": browser.version,
            "python": platform.python_version(),
            "page_bytes": size(REPORT, "index.html"),
            "default": viewer(browser, REPORT),
            "large": viewer(browser, large),
        }
        IMAGES.mkdir(exist_ok=True)
        picture(browser, "report", "index.html", "light", 860)
        flipped = "attempts.html#model=epoch1&split=test&turn=1&epoch1+%E2%86%92+epoch2=newly+right"
        picture(browser, "attempts", flipped, "dark", 640)
    found["revision"] = commit()
    say(json.dumps(found, indent=1))
    return found


if __name__ == "__main__":
    OUT.write_text(json.dumps(measured(), indent=1) + "\n")
