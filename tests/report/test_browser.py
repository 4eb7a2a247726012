"""The pages in a real browser: nothing is loaded from elsewhere, no error, filters, keys, links, accessibility, speed.

Needs Chromium (Debian: `apt-get install chromium`); CHROMIUM names another one.
"""

from __future__ import annotations

import os
import shutil
from urllib.parse import urlencode

import pandas as pd
import pytest

from tests.report.finished import finished
from tests.report.test_times import RECORD
from whetstone.report import run as runs
from whetstone.report import times

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed: pip install -e '.[dev]'")
axe_module = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe isn't installed")

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FOUND = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(FOUND is None, reason="no Chromium here: apt-get install chromium, or set CHROMIUM")
WIDE, NARROW = {"width": 1360, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    made = tmp_path_factory.mktemp("report")
    runs.write(run, runs.results(run), made)
    return made


@pytest.fixture(scope="module")
def attempts(run) -> pd.DataFrame:
    """All attempts with the columns of their problems."""
    rows = pd.concat([*run.sampled.values(), *run.evaluated.values()])
    problems = pd.concat(run.problems.values())[["id", "split", "family", "question"]]
    return rows.merge(problems.rename(columns={"id": "problem_id"}), on="problem_id").set_index("id")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        opened = playwright.chromium.launch(executable_path=FOUND, args=options)
        yield opened
        opened.close()


@pytest.fixture
def tab(browser):
    """Opens pages; at the end there was no message on a console, no error, and no request to anywhere else."""
    contexts, faults = [], []

    def open_page(address: str, scheme: str = "light", size: dict = WIDE, **options):
        context = browser.new_context(color_scheme=scheme, viewport=size, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("requestfailed", lambda request: faults.append(f"failed: {request.url[:200]}"))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or faults.append(request.url))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults


@pytest.fixture
def viewer(tab, folder):
    def open_viewer(scheme: str = "light", size: dict = WIDE, **filters):
        page = tab(f"file://{folder}/attempts.html#{urlencode(filters, doseq=True)}", scheme, size)
        page.wait_for_selector("html[data-ready]")
        page.wait_for_selector("#detail .place, #detail .muted")
        return page

    return open_viewer


def ids(page) -> list[str]:
    """All that pass the filters, by walking through them."""
    found, total = [], int(page.text_content("#found").split(" of ")[0].replace(",", ""))
    page.focus("#list")
    page.keyboard.press("Home")
    for _ in range(total):
        found.append(at(page))
        page.keyboard.press("j")
    return found


def at(page) -> str:
    return page.evaluate("new URLSearchParams(location.hash.slice(1)).get('at')")


def count(page) -> int:
    return int(page.text_content("#found").split(" of ")[0].replace(",", ""))


# --- the report


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_is_drawn_and_nothing_sticks_out(tab, folder, scheme, size):
    page = tab(f"file://{folder}/index.html", scheme, size)
    for dataset in ("test", "test_hard"):
        page.click(f".switch button[value={dataset}]")
        page.wait_for_function(
            "() => [...document.querySelectorAll('.chart')].every(c => !c.clientWidth || c.querySelector('svg path'))"
        )
        assert page.evaluate("document.scrollingElement.scrollWidth") <= size["width"]
    assert page.locator(".chart svg").count() == page.locator(".chart").count() >= 15


def test_colours_follow_the_system_then_the_reader(tab, folder):
    page = tab(f"file://{folder}/index.html", "dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.click("#theme")
    light = page.evaluate(background)
    assert light != dark and page.evaluate("localStorage.theme") == "light"
    page.reload()
    assert page.evaluate(background) == light
    page.evaluate("localStorage.removeItem('theme')")


def test_it_prints_on_white(tab, folder):
    page = tab(f"file://{folder}/index.html", "dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(26, 28, 32)"
    assert not page.is_visible("header.top")
    assert len(page.pdf()) > 50_000


def test_a_cell_of_the_heat_map_opens_its_attempts(tab, folder, attempts):
    page = tab(f"file://{folder}/index.html")
    page.click(".heat td.own a >> nth=0")
    page.wait_for_selector("html[data-ready]")
    given = dict(page.evaluate("[...new URLSearchParams(location.hash.slice(1))]"))
    own = attempts[
        (attempts["model"] == "epoch1") & (attempts["turn"] == 1)
        & (attempts["split"] == "test") & (attempts["family"] == given["family"])
    ]  # fmt: skip
    assert count(page) == len(own) > 0


def test_a_moved_choice_opens_its_problems(tab, folder, run):
    page = tab(f"file://{folder}/index.html")
    first = page.locator("#choice [data-dataset=test] .counts a").last
    expected = int(first.text_content().split()[0])
    first.click()
    page.wait_for_selector("html[data-ready]")
    assert count(page) == expected > 0


# --- the viewer

FILTERS = [
    ({"model": "epoch2"}, lambda a: a["model"] == "epoch2"),
    ({"strategy": ["cot", "pot"]}, lambda a: a["strategy"].isin(["cot", "pot"])),
    ({"verdict": "unparsed", "split": "test"}, lambda a: (a["verdict"] == "unparsed") & (a["split"] == "test")),
    ({"family": "shop", "model": "epoch1"}, lambda a: (a["family"] == "shop") & (a["model"] == "epoch1")),
    ({"turn": "1", "error": "exception"}, lambda a: (a["turn"] == 1) & (a["error"] == "exception")),
]


@pytest.mark.parametrize(("filters", "expected"), FILTERS, ids=[" ".join(f) for f, _ in FILTERS])
def test_filters_show_what_pandas_finds(viewer, attempts, filters, expected):
    own = attempts[expected(attempts)]
    page = viewer(**filters)
    assert count(page) == len(own) > 0
    if len(own) < 60:
        assert set(ids(page)) == set(own.index)


def test_a_flip_shows_the_problems_that_flipped(viewer, attempts, run):
    page = viewer(
        **{"epoch1 → epoch2": "newly right", "model": ["epoch1", "epoch2"], "turn": "1", "split": "test"}
    )
    shown = attempts.loc[ids(page)]
    right = shown.assign(right=shown["verdict"] == "correct").pivot(
        index="problem_id", columns="model", values="right"
    )
    assert len(right) == runs.results(run).summaries["test"]["comparisons"]["epoch2 vs epoch1"]["wins"]
    assert not right["epoch1"].any() and right["epoch2"].all()


def test_a_box_filters_and_its_count_says_how_many(viewer, attempts):
    page = viewer()
    box = page.locator("#facets fieldset", has_text="verdict").locator("label", has_text="wrong")
    wrong = int((attempts["verdict"] == "wrong").sum())
    assert box.locator("span").last.text_content() == str(wrong)
    box.click()
    assert count(page) == wrong and "verdict=wrong" in page.url
    box.click()
    assert count(page) == len(attempts)
    page.keyboard.press("x")


def test_keys_go_through_attempts_and_problems(viewer, attempts):
    page = viewer(model="epoch2", split="test")
    page.keyboard.press("Home")
    first = at(page)
    page.keyboard.press("j")
    second = at(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("k")
    assert at(page) == second != first
    page.keyboard.press("]")
    third = attempts.loc[at(page)]
    assert third["problem_id"] != attempts.loc[first]["problem_id"] and third["turn"] == 1
    page.keyboard.press("[")
    assert at(page) == first
    page.keyboard.press("End")
    assert page.text_content("#detail .place").split(" of ")[0] == page.text_content("#found").split(" of ")[0]
    page.keyboard.press("/")
    page.keyboard.type("j")  # typed, not a key
    assert page.input_value("#search") == "j"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.is_visible("#keys")
    page.keyboard.press("Escape")
    assert not page.is_visible("#keys")


def test_a_link_leads_to_one_attempt_and_its_whole_text(viewer, attempts):
    name = attempts.index[(attempts["model"] == "epoch1") & (attempts["strategy"] == "pot")][3]
    page = viewer(at=name)
    own = attempts.loc[name]
    shown = page.text_content("#detail")
    assert own["text"].strip() in shown and own["question"].strip() in shown and name in shown
    said = "no answer: exception" if own["error"] else f"the program's answer is {own['answer']}"
    assert said in shown
    assert page.locator("#detail .grid button").count() == (attempts["problem_id"] == own["problem_id"]).sum()
    hidden = viewer(at=name, model="base")  # its filters would hide it
    assert at(hidden) == name


def test_a_click_on_another_attempt_of_the_problem_goes_there(viewer, attempts):
    page = viewer(model="epoch2", split="test", turn="1")
    page.click("#detail .grid button >> nth=0")
    page.wait_for_function(
        "() => document.querySelector('#detail .grid button').getAttribute('aria-current') === 'true'"
    )
    assert attempts.loc[at(page)]["model"] == "base"


@pytest.mark.parametrize("query", ["answer = missing", "PROBLEM 12 OF TEST", "epoch1:world-test-000004", "<img src=x"])
def test_a_search_finds_texts_questions_and_ids(viewer, attempts, query):
    page = viewer()
    page.fill("#search", query)
    low = query.lower()
    texts = attempts["text"] + "\n" + attempts["question"] + "\n" + attempts.index
    expected = int(texts.str.lower().str.contains(low, regex=False).sum())
    page.wait_for_function(f"() => document.getElementById('found').textContent.startsWith('{expected:,} of')")
    assert 0 < expected < len(attempts) and page.locator("#detail mark").count() >= 1 - ("epoch1:" in query)


def test_nothing_found_is_said(viewer):
    page = viewer(q="no text has this")
    assert count(page) == 0 and "Nothing passes these filters" in page.text_content("#detail")


def test_pairs_stand_side_by_side(viewer, run, attempts):
    page = viewer(list="pairs")
    pairs = run.epochs["epoch2"].rows
    assert count(page) == len(pairs)
    chosen, rejected = page.locator("#detail .sheet").all()
    first = page.evaluate("new URLSearchParams(location.hash.slice(1)).get('over')")
    assert [at(page), first] in [list(ids) for ids in pairs["attempt_ids"]]
    assert attempts.loc[at(page)]["text"].strip() in chosen.text_content()
    assert attempts.loc[first]["text"].strip() in rejected.text_content()
    page.click(".switch button[value=attempts]")
    assert count(page) == len(attempts)


def test_markup_in_texts_is_text(viewer, attempts):
    name = attempts.index[attempts["text"].str.contains("<img", regex=False)][0]
    page = viewer(at=name)
    assert "<img src=x" in page.text_content("#detail") and page.title() == "Whetstone attempts"


def test_a_link_to_a_late_attempt_scrolls_the_list_to_it(viewer, attempts):
    name = list(attempts.sort_values("problem_id").index)[-1]
    page = viewer(at=name)
    page.wait_for_selector(".row[aria-selected=true]", timeout=3000)
    assert at(page) == name


def test_the_output_of_a_program_is_shown(viewer, attempts):
    failed = attempts[attempts["output"].notna()]
    page = viewer(at=failed.index[0])
    assert page.locator("#detail .printed").first.text_content() == failed["output"].iloc[0]
    silent = attempts[attempts["output"].isna()].index[0]
    page = viewer(at=silent)
    assert page.locator("#detail .printed").count() == 0


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(tab, viewer, folder, scheme, size):
    report = tab(f"file://{folder}/index.html", scheme, size, bypass_csp=True)
    report.wait_for_selector(".chart svg")
    shown = [
        tab(f"file://{folder}/attempts.html{part}", scheme, size, bypass_csp=True) for part in ("", "#list=pairs")
    ]
    for page in shown:
        page.wait_for_selector("#detail .sheet")
    (folder / "run.html").write_text(times.html({"infer@cot-1": RECORD, "report": None}))
    run_page = tab(f"file://{folder}/run.html", scheme, size, bypass_csp=True)
    for page in (report, *shown, run_page):
        found = axe_module.Axe().run(page).response["violations"]
        serious = {
            f"{one['id']}: {one['nodes'][0]['html'][:200]}"
            for one in found
            if one["impact"] in ("serious", "critical")
        }
        assert not serious


# --- size


def test_a_hundred_thousand_attempts_load_in_two_seconds_and_filter_in_a_fifth(tab, tmp_path):
    run = finished(tmp_path, train=11_100, test=200, samples=2)
    runs.write(run, runs.results(run), tmp_path / "report")
    page = tab(f"file://{tmp_path}/report/attempts.html")
    page.wait_for_selector("#detail .sheet")
    loaded = page.evaluate("performance.getEntriesByName('ready')[0].duration")
    total = int(page.text_content("#found").split(" of ")[1].replace(",", ""))
    painted = """async box => {
        const began = performance.now();
        box.click();
        await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
        return performance.now() - began;
    }"""
    times = []
    for label in ("wrong", "cot", "epoch1", "shop"):
        before = page.text_content("#found")
        times.append(page.locator("#facets label", has_text=label).first.locator("input").evaluate(painted))
        assert page.text_content("#found") != before
    print(f"{total:,} attempts: loaded in {loaded:.0f} ms, filtered in {[round(t) for t in times]} ms")
    assert total >= 100_000 and loaded <= 2000 and sorted(times)[-1] <= 200
