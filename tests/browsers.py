"""A real browser for the end-to-end tests, and what can be seen by looking at a page: names, contrast, order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import needs
from playwright.sync_api import Browser, Page, sync_playwright

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
PATIENCE_MS = 60_000


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start chromium without a window, with a profile of its own."""
    program = needs.tool("chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=[*FLAGS, f"--crash-dumps-dir={folder}"])
        try:
            yield found
        finally:
            found.close()


@contextmanager
def page(found: Browser, size: dict[str, int] | None = None, scheme: Any = "light") -> Iterator[Page]:  # noqa: ANN401 a literal of playwright's
    """Open a page that fails the test when a script of it does, or when it asks anybody else for anything."""
    context = found.new_context(viewport=size or DESK, color_scheme=scheme)  # type: ignore[arg-type] # a typed dict
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda request: wrong.append(request.url) if "//127.0.0.1:" not in request.url else None)
    try:
        yield opened
    finally:
        context.close()
    assert wrong == []


LOOK = """
() => {
  const problems = [];
  const shown = (e) => e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length;
  const text = (e) => (e.getAttribute("aria-label") || [...e.labels ?? []].map((l) => l.textContent).join(" ")
    || e.textContent || e.getAttribute("alt") || e.getAttribute("title") || "").trim();
  for (const e of document.querySelectorAll("button, a[href], input, select, [role=img]"))
    if (shown(e) && !text(e)) problems.push(`no name: ${e.outerHTML.slice(0, 80)}`);
  for (const e of document.querySelectorAll("img")) if (!e.hasAttribute("alt")) problems.push(`no alt: ${e.src}`);
  for (const e of document.querySelectorAll("table")) {
    if (!e.caption) problems.push("a table without a caption");
    for (const th of e.querySelectorAll("th")) if (!th.scope) problems.push(`no scope: ${th.textContent}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) problems.push(`twice: #${id}`);
  if (!document.documentElement.lang) problems.push("no language");
  if ([...document.querySelectorAll("h1")].filter(shown).length !== 1) problems.push("not one h1");
  const wide = document.documentElement.scrollWidth;
  if (wide > innerWidth) problems.push(`wider than the screen: ${wide}`);
  const parse = (c) => { const m = c.match(/[\\d.]+/g).map(Number); return { rgb: m.slice(0, 3), a: m[3] ?? 1 }; };
  const linear = (v) => (v <= 10.3 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.a === 1) return colour.rgb;
    }
    return [255, 255, 255];
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    const words = walk.currentNode.textContent.trim();
    if (!words || !shown(e) || e.closest(".unseen, .skip, noscript, option, :disabled")) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(parse(style.color).rgb), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) problems.push(`contrast ${ratio.toFixed(2)}: ${words.slice(0, 40)}`);
  }
  return problems;
}
"""


def problems(opened: Page) -> list[str]:
    """Return what those meet who read with their ears, with a keyboard, or with tired eyes (WCAG 2.2, AA)."""
    found: list[str] = opened.evaluate(LOOK)
    return found
