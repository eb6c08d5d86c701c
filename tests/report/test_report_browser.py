"""The report in a browser: nothing on the console, no request, all pictures there, readable from phone to desk."""

import json
from pathlib import Path

import numpy as np
import pytest
from audit_fields import found_audit
from chromium import Chromium, find_chromium
from report_runs import comparison, summary
from test_report_page import HOSTILE, history, hostile_audit

from aifs_peft.report import audit_page, render_html, write_audit_folder, write_report

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium is installed (set AIFS_CHROMIUM to the path of one)"
)
CONTRAST = """
(() => {
  const light = c => { const v = c / 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  const behind = node => {
    for (let at = node; at; at = at.parentElement) {
      const c = parse(getComputedStyle(at).backgroundColor);
      if (c.length && (c.length < 4 || c[3] > 0)) return c;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some(c => c.nodeType === 3 && c.data.trim());
    if (!own || !node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    const colour = node instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [luminance(parse(colour)), luminance(behind(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) low.push([node.tagName, node.textContent.trim().slice(0, 40), ratio.toFixed(2)]);
  }
  return low;
})()
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run with pictures, an audit with hostile names and texts, and a run of which little is known."""
    folder = tmp_path_factory.mktemp("pages")
    audit = found_audit()
    pictures = np.random.default_rng(0).integers(0, 255, (600, 10, 14, 3)).astype(np.uint8)
    (folder / "summary.json").write_text(
        json.dumps(summary(comparison=comparison(), history=history(), group_definition="label x scanner"))
    )
    write_audit_folder(audit, folder, pictures)
    (folder / "hostile.html").write_text(audit_page(hostile_audit(audit), [HOSTILE] * 600, title=HOSTILE * 4))
    (folder / "bare.html").write_text(render_html(summary(method="erm", metrics=None)))
    return {"full": write_report(folder), "hostile": folder / "hostile.html", "bare": folder / "bare.html"}


@pytest.fixture(scope="module")
def browser():
    path = find_chromium()
    assert path is not None
    with Chromium(path) as opened:
        yield opened


@pytest.mark.parametrize("page", ["full", "hostile", "bare"])
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("dark", [False, True])
def test_it_shows(pages, browser, page: str, width: int, dark: bool, tmp_path: Path) -> None:
    browser.open(pages[page], width, dark=dark)
    assert browser.complaints() == []
    assert browser.requests() == []
    assert browser.ask("[...document.images].filter(i => !i.complete || !i.naturalWidth).length") == 0
    assert browser.ask("document.images.length") == (54 if page == "full" else 0)
    assert browser.ask("document.documentElement.scrollWidth") <= width  # nothing to scroll sideways
    assert browser.ask("document.querySelectorAll('figure svg').length") >= {"full": 7, "hostile": 4, "bare": 0}[page]
    smallest = (
        "Math.min(...[...document.querySelectorAll('figure svg')].map(s => s.getBoundingClientRect().width), 999)"
    )
    assert browser.ask(smallest) > 200
    assert browser.ask(CONTRAST) == []
    assert browser.picture(tmp_path / "page.png").stat().st_size > 20_000


def test_the_two_forms_differ(pages, browser) -> None:
    grounds = []
    for dark in (False, True):
        browser.open(pages["full"], 1440, dark=dark)
        grounds.append(browser.ask("getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] != grounds[1]


def test_it_prints(pages, browser) -> None:
    browser.open(pages["full"], 1440, media="print")
    assert browser.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
    pdf = browser.call("Page.printToPDF", printBackground=True)["data"]
    assert len(pdf) > 50_000
