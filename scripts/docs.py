"""The documentation as a site: `python3 scripts/docs.py` builds it in `build/docs/`, `… serve [PORT]` shows it too.

The build is strict: a link or anchor that leads nowhere ends it, and so does a page that would load something from the
network.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from environments import ROOT, cached, fingerprint, require_python, run, tools

SITE = ROOT / "build" / "docs"
PORT = 8000
_REMOTE = re.compile(r"(?:https?:)?//", re.IGNORECASE)
# What a browser fetches by itself; `a` leads elsewhere only when a person clicks.
_LOADING = {"src", "srcset", "data", "poster", "background"}
_IN_STYLES = re.compile(r"url\(\s*['\"]?((?:https?:)?//[^)'\"]+)|@import\s+['\"]((?:https?:)?//[^'\"]+)", re.IGNORECASE)
# The theme's script asks for these where the browser is old, or where a page has diagrams or a repository. None has.
_SCRIPTS = re.compile(r"([\"'`])https?://unpkg\.com/[^\"'`]*\1")


def environment() -> Path:
    """Return the `bin` directory of the pinned environment that holds mkdocs."""
    requirements = ROOT / "docs" / "requirements.txt"

    def build(directory: Path) -> None:
        uv = tools() / "uv"
        run([uv, "venv", "--quiet", "--no-project", "--python", sys.executable, directory])
        run([uv, "pip", "install", "--quiet", "--python", directory / "bin" / "python", "-r", requirements])

    return cached(f"docs-{fingerprint([requirements, sys.version, platform.machine()])}", build) / "bin"


def build(source: Path = ROOT, site: Path = SITE) -> int:
    """Build the site of `source` anew; return the number of its pages. Ends the program with what is wrong."""
    require_python()
    # The theme's advertisement against a coming major version of its framework, which the pins keep away.
    os.environ["NO_MKDOCS_2_WARNING"] = "1"
    mkdocs = environment() / "mkdocs"
    # Not with its own --quiet: that hides warnings also from --strict.
    run(
        [mkdocs, "build", "--strict", "--clean", "--config-file", source / "mkdocs.yml", "--site-dir", site], quiet=True
    )
    for script in site.rglob("*.js"):
        text = script.read_text()
        script.write_text(_SCRIPTS.sub('"data:text/javascript,"', text))
    loaded = [line for file in sorted(site.rglob("*")) for line in from_the_network(file)]
    if loaded:
        raise SystemExit("the site would load from the network:\n" + "\n".join(f"  {line}" for line in loaded))
    return len(list(site.glob("*.html")))


def from_the_network(file: Path) -> Iterator[str]:
    """Yield `file: address` for each thing that a browser would fetch from elsewhere because of `file`."""
    if file.suffix == ".html":
        page = _Page()
        page.feed(file.read_text())
        found = page.loaded
    elif file.suffix == ".css":
        found = [first or second for first, second in _IN_STYLES.findall(file.read_text())]
    elif file.suffix == ".js":
        found = [match[0] for match in _SCRIPTS.finditer(file.read_text())]
    else:
        return
    for address in found:
        yield f"{file.name}: {address}"


class _Page(HTMLParser):
    """Collects what a page loads, and the places where the theme's script would ask a code host about a repository."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self._in_style = tag == "style"
        for name, value in values.items():
            loads = name in _LOADING or (tag == "link" and name == "href" and values.get("rel") != "canonical")
            if (loads and _REMOTE.match(value)) or (name == "style" and _IN_STYLES.search(value)):
                self.loaded.append(value)
        if values.get("data-md-component") == "source":
            self.loaded.append("the theme's box of a repository")
        if "mermaid" in values.get("class", "").split():
            self.loaded.append("a diagram, whose renderer is not part of the site")

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.loaded += [first or second for first, second in _IN_STYLES.findall(data)]

    def handle_endtag(self, tag: str) -> None:
        if tag == "style":
            self._in_style = False


def serve(port: int) -> None:
    """Show the built site on this machine until Ctrl-C."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(SITE))
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise SystemExit(f"port {port}: {error.strerror}; name another: serve {port + 1}") from None
    print(f"http://127.0.0.1:{server.server_port}/  (Ctrl-C ends it)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


def main(words: list[str]) -> None:
    port = words[1] if len(words) == 2 else str(PORT)
    if words and (words[0] != "serve" or len(words) > 2 or not port.isdigit() or int(port) > 65535):
        raise SystemExit("usage: python3 scripts/docs.py [serve [PORT]]")
    pages = build()
    print(f"{pages} pages in {os.path.relpath(SITE)}/, nothing loaded from the network", flush=True)
    if words:
        serve(int(port))


if __name__ == "__main__":
    main(sys.argv[1:])
