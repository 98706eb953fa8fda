"""The report in a browser: on a phone and a desktop, light, dark and printed. Needs Chromium."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import CHROMIUM, Browser
from support.in_process import introspect_here
from support.record_examples import conversation, generation, written
from support.report_records import HOSTILE, LENS, attention_record, result

from introspect.readers.comparison import measured_run
from introspect.readers.divergence import diverged
from introspect.report.comparison_page import comparison_page
from introspect.report.divergence_page import divergence_page
from introspect.report.run_page import report_of

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
PICTURES = os.environ.get("INTROSPECT_REPORT_PICTURES")
"""A folder where the pictures are kept, for looking at them."""
LOOKS = [(width, dark) for width in (390, 1280) for dark in (False, True)]
CONTRAST = """
(() => {
  const channel = c => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = c => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  let worst = [99, ''];
  for (const e of document.querySelectorAll('body, body *')) {
    if (e.tagName === 'title') continue;
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const style = getComputedStyle(e);
    const ink = e instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(parse(ink)), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const name = e.tagName + '.' + e.getAttribute('class') + ': ' + e.textContent.slice(0, 40);
    if (ratio < worst[0]) worst = [ratio, name];
  }
  return worst;
})()
"""
BESIDE = """
[...document.querySelectorAll('body *')].filter(e => {
  if (e.closest('.scroll, svg')) return false;
  const box = e.getBoundingClientRect();
  return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1);
}).map(e => e.tagName + '.' + e.className + ': ' + e.textContent.slice(0, 60))
"""


SQUEEZED = """
[...document.querySelectorAll('caption, th, td, p, dd, li, .text, .code, h1, h2, h3, h4')].filter(e => {
  const box = e.getBoundingClientRect();
  return box.width > 0 && box.width < 48 && e.textContent.trim().length > 12;
}).map(e => e.tagName + ': ' + e.textContent.slice(0, 60))
"""
"""Elements in which a line has room for a few letters only."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long words, maps, a lens, and everything that might act on a page."""
    events = conversation("A reply.", "x" * 3000, prune_before=1)
    nasty = [generation(text * 3, 3 + number) for number, text in enumerate(HOSTILE)]
    shown = [
        result(LENS),
        result(attention_record(3)),
        result(attention_record(60)),
        result(result={"k" * 900: "v" * 900}),
    ]
    settings = {"key" * 60: "value" * 200, "list": ["x" * 400]}
    middle = [*events[:-2], *shown, *nasty]
    return written(
        tmp_path_factory.mktemp("runs"), [*middle, *events[-2:]], settings=settings, title="T" * 200
    )


def shows_well(browser: Browser, page: Path, name: str) -> None:
    """Look at a page in every way; it asks for nothing else, complains of nothing and fits."""
    browser.messages.clear()
    browser.requests.clear()
    for width, dark in LOOKS:
        browser.show(page, width, dark)
        for opened in (False, True):
            browser.value(
                f"document.querySelectorAll('details').forEach(d => d.open = {str(opened).lower()})"
            )
            assert browser.value("document.documentElement.scrollWidth") <= width
            assert browser.value(BESIDE) == [] == browser.value(SQUEEZED)
        ratio, where = browser.value(CONTRAST)
        assert ratio >= 4.5, (width, dark, where)
        assert (browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)") == dark
        browser.value("document.querySelectorAll('details').forEach(d => d.open = false)")
        picture = page.with_name(f"{name}-{width}-{'dark' if dark else 'light'}.png")
        browser.picture(picture)
        assert picture.stat().st_size > 10_000
        if PICTURES:
            (Path(PICTURES) / picture.name).write_bytes(picture.read_bytes())
    assert browser.messages == []
    assert set(browser.requests) == {page.resolve().as_uri()}


def test_the_report_of_a_tiny_run(
    browser: Browser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ("--seed", "0", "--limit", "1", "--max-turns", "3", "--output", str(tmp_path), "--quiet")
    assert introspect_here(capsys, "run", "phase1a", "--model", "tiny", *how).code == 0
    page = tmp_path / "report.html"
    done = introspect_here(capsys, "report", "latest", "--runs", str(tmp_path), "--output", str(page))
    assert done.code == 0
    shows_well(browser, page, "tiny")


def test_hostile_text_does_nothing(browser: Browser, hostile_run: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(report_of(hostile_run / "events.jsonl").html, encoding="utf-8")
    shows_well(browser, page, "hostile")
    assert browser.value("document.scripts.length + document.images.length + document.forms.length") == 0
    assert browser.value("document.title").startswith("Report of ")


def test_print_has_what_is_folded(browser: Browser, hostile_run: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(report_of(hostile_run / "events.jsonl").html, encoding="utf-8")
    browser.show(page, 800, dark=True, media="print")
    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    closed = "[...document.querySelectorAll('details:not([open]) > .code, details:not([open]) table')]"
    assert browser.value(f"{closed}.length") > 3
    assert browser.value(f"{closed}.every(e => e.getBoundingClientRect().height > 0)")


def test_a_screen_reader_finds_landmarks_headings_and_tables(
    browser: Browser, hostile_run: Path, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    page.write_text(report_of(hostile_run / "events.jsonl").html, encoding="utf-8")
    browser.show(page, 1280)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"]
    ]
    roles = [role for role, _ in named]
    for role in ("main", "banner", "navigation", "contentinfo", "heading", "table", "figure", "article"):
        assert role in roles, role
    for role in ("table", "figure", "image", "img", "region", "article", "navigation"):
        assert all(name for found, name in named if found == role), role


def test_other_pages_show_well(browser: Browser, hostile_run: Path, tmp_path: Path) -> None:
    other = written(tmp_path, conversation("Another reply.", "y" * 500))
    page = tmp_path / "page.html"
    pair = (str(hostile_run), str(other))
    page.write_text(divergence_page(diverged(*pair, tmp_path)), encoding="utf-8")
    shows_well(browser, page, "diff")
    page.write_text(comparison_page([measured_run(source, tmp_path) for source in pair]), encoding="utf-8")
    shows_well(browser, page, "compare")
