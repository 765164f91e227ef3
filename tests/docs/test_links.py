"""Every link of README, changelog and documentation leads somewhere, and every page can be reached."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from support.pages import DOCS, PAGES, ROOT, anchors, links


def dead_links(page: Path) -> list[str]:
    dead = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and (file.suffix != ".md" or anchor not in anchors(file))):
            dead.append(target)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Relative links name files of the checkout, and their anchors headings of these files."""
    assert dead_links(page) == []


def test_dead_links_are_found(tmp_path: Path) -> None:
    """The test above would see a missing file, and a missing heading; code and other sites do not count."""
    page = tmp_path / "page.md"
    page.write_text(
        "# One `two`\n## Again\n## Again\n[a](#one-two) [b](#again_1) [c](#three) [d](none.md) [e](page.md#one-two)\n"
        "[f](https://example.com/x)\n```text\n[g](gone.md)\n# no heading\n```\n"
    )
    assert dead_links(page) == ["#three", "none.md"]


def test_every_page_is_in_the_navigation() -> None:
    """What is not in the site's navigation is found by nobody; what is in it exists."""
    pages = re.findall(r"^  - [^:\n]+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(pages) == sorted(path.name for path in DOCS.glob("*.md"))


def test_links_of_the_site_are_checked_by_its_build() -> None:
    """The build is strict, and links and anchors that lead nowhere are among what ends it."""
    configuration = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert configuration["strict"] is True
    assert set(configuration["validation"]["links"].values()) == {"warn"}
    assert configuration["theme"]["font"] is False
