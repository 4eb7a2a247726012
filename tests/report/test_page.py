"""The page is one file that needs nothing else, and says what the tables say."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from whetstone.report import run as runs
from whetstone.report import sections, story
from whetstone.report.page import vega

HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def found(run):
    return runs.results(run)


@pytest.fixture(scope="module")
def page(run, found) -> str:
    return runs.html(run, found)


class Addresses(HTMLParser):
    """What a page would load, and where its links lead."""

    def __init__(self, text: str):
        super().__init__()
        self.loads, self.links, self.ids = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids.add(given.get("id"))
        self.links += [given["href"]] if tag == "a" and "href" in given else []
        self.loads += [given["href"]] if tag == "link" else []
        self.loads += [given["src"]] if "src" in given else []


def test_it_loads_nothing(page):
    found = Addresses(page)
    assert found.loads == ["data:,"]
    assert {link.partition("#")[0] for link in found.links} == {"", "attempts.html", "../manifests/index.html"}
    assert {link[1:] for link in found.links if link.startswith("#")} <= found.ids
    assert len(page.encode()) < 5_000_000


def test_texts_of_data_sets_are_never_markup(run):
    named = {path: own.assign(family=own["family"].replace("shop", HOSTILE)) for path, own in run.problems.items()}
    other = replace(run, problems=named)
    own = runs.html(other, runs.results(other)).replace(vega(), "")
    assert own.count("&lt;img src=x") > 2 and own.count("\\u003cimg src=x") > 2 and "<img" not in own


def test_charts_are_valid(page):
    import vl_convert

    specs = json.loads(re.search(r'id="charts">(.*?)</script>', page, re.DOTALL)[1])
    drawn = set(re.findall(r'data-chart="([^"]+)"', page))
    assert set(specs) == drawn and len(drawn) >= 15
    for spec in specs.values():
        assert vl_convert.vegalite_to_vega(spec, vl_version="6.4")["marks"]
        assert spec["description"] and spec["data"]["values"]


def test_numbers_of_the_summary_are_on_the_page(page, found):
    summary = found.summaries["test"]
    text = re.sub(r"<[^>]+>", "", page)
    for label in ("epoch1", "epoch2"):
        assert f"{100 * summary[label]['first_attempt']['accuracy']:.1f} %" in text
    step = summary["comparisons"]["epoch2 vs epoch1"]
    assert f"{step['wins']} newly right and {step['losses']} newly wrong" in text


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.01, 0.05, "better than"), (-0.05, -0.01, "worse than"), (-0.01, 0.02, "not clearly different from"),
     (0.0, 0.02, "not clearly different from")],
)  # fmt: skip
def test_a_difference_is_only_called_one_when_its_interval_excludes_zero(low, high, said):
    assert story.verdict({"low": low, "high": high}) == said


def test_links_lead_to_filters_that_the_viewer_has(run, page):
    titles = set(runs.marks(run))
    assert titles == {
        "base, best single → epoch1", "epoch1 → epoch2", "choice, base, untaught → epoch1", "choice, epoch1 → epoch2",
    }  # fmt: skip
    assert sections.flip_filter("epoch1", "epoch2") in titles
    assert "split=test&amp;epoch1+%E2%86%92+epoch2=newly+right&amp;model=epoch2&amp;turn=1" in page


def test_problems_without_family_and_level_still_make_a_page(run):
    bare = {path: own.assign(family=None, level=None) for path, own in run.problems.items()}
    other = replace(run, problems=bare)
    assert "name neither family nor level" in runs.html(other, runs.results(other))


def test_markdown_begins_with_the_headline(run, found, tmp_path):
    runs.write(run, found, tmp_path)
    headline = (tmp_path / "headline.md").read_text()
    assert headline.startswith("### Accuracy on test\n") and "### Comparisons on test" in headline
    assert (tmp_path / "report.md").read_text().startswith(headline.rstrip("\n"))
