"""The site of the documentation loads nothing from the network."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from support.pages import DOCS, ROOT

# What a browser fetches by itself, in each of the ways in which a page may ask for it.
LOADING = [
    '<script src="https://example.com/a.js"></script>',
    '<link rel="stylesheet" href="//example.com/a.css">',
    '<link rel="preconnect" href="https://example.com">',
    '<img src="HTTP://example.com/a.png">',
    '<img srcset="https://example.com/a.png 2x">',
    '<p style="background: url(https://example.com/a.png)">',
    '<style>@import "https://example.com/a.css";</style>',
    '<iframe src="https://example.com/"></iframe>',
    '<pre class="mermaid">a --> b</pre>',
    '<div class="md-source" data-md-component="source"></div>',
]
HARMLESS = [
    '<a href="https://example.com/">elsewhere</a>',
    '<script src="assets/a.js"></script>',
    '<link rel="canonical" href="https://example.com/page.html">',
    "<code>@import 'https://example.com/a.css'</code>",
]


@pytest.fixture
def docs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`scripts/docs.py`, imported under a name that no directory of tests has."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    found = importlib.util.spec_from_file_location("script_of_the_site", ROOT / "scripts" / "docs.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("html", LOADING)
def test_what_a_page_would_load_is_found(docs: ModuleType, tmp_path: Path, html: str) -> None:
    """The build ends for a page that would ask another machine for something."""
    page = tmp_path / "page.html"
    page.write_text(f"<html><body>{html}</body></html>")
    assert len(list(docs.from_the_network(page))) == 1


@pytest.mark.parametrize("html", HARMLESS)
def test_links_and_own_files_are_not_loaded_from_elsewhere(docs: ModuleType, tmp_path: Path, html: str) -> None:
    """A link that a person may click is no reason to end the build."""
    page = tmp_path / "page.html"
    page.write_text(f"<html><body>{html}</body></html>")
    assert list(docs.from_the_network(page)) == []


def test_styles_and_scripts_are_looked_at_too(docs: ModuleType, tmp_path: Path) -> None:
    """Fonts of a style sheet and scripts that a script asks for are found; the address of a licence is not."""
    style, script = tmp_path / "a.css", tmp_path / "a.js"
    style.write_text("/* https://example.com/licence */ @font-face{src:url('https://example.com/font.woff2')}")
    script.write_text('load("https://unpkg.com/something@1/a.min.js")')
    assert list(docs.from_the_network(style)) == ["a.css: https://example.com/font.woff2"]
    assert len(list(docs.from_the_network(script))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("link", ["launcher.md#nowhere", "none.md", "/absolute.md", ""])
def test_the_build_ends_for_a_link_that_leads_nowhere(docs: ModuleType, tmp_path: Path, link: str) -> None:
    """A missing page or heading ends the strict build; the pages as they are do not."""
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(DOCS, tmp_path / "docs")
    if not link:
        assert docs.build(tmp_path, tmp_path / "site") > 10
        return
    with open(tmp_path / "docs" / "limits.md", "a") as page:
        page.write(f"\n[nowhere]({link})\n")
    with pytest.raises(SystemExit) as ended:
        docs.build(tmp_path, tmp_path / "site")
    assert ended.value.code == 1


def test_the_requirements_are_pinned() -> None:
    """The documentation is built by the same versions everywhere."""
    lines = [line for line in (DOCS / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) > 10
    assert [line for line in lines if "==" not in line.partition(";")[0]] == []
