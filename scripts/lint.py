"""`make lint`: formatting, lints and types of both languages, and the documentation, built strictly."""

from __future__ import annotations

import sys

from environments import ROOT, require_python, tools
from suites import Suite, run_all

if __name__ == "__main__":
    require_python()
    tool = tools()
    native = ROOT / "native"
    clippy = ["cargo", "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]
    raise SystemExit(
        run_all(
            [
                Suite("ruff check", [tool / "ruff", "check", "."]),
                Suite("ruff format", [tool / "ruff", "format", "--check", "."]),
                Suite("mypy", [tool / "mypy"]),
                Suite("cargo fmt", ["cargo", "fmt", "--all", "--check"], native),
                Suite("cargo clippy", clippy, native),
                Suite("docs", [sys.executable, ROOT / "scripts" / "docs.py"]),
            ]
        )
    )
