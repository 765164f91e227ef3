"""Modes: nothing reports a protection that is not active."""

from __future__ import annotations

import pytest

from agent_assembly.core.modes import resolve_mode
from agent_assembly.exceptions import ConfigurationError


@pytest.mark.parametrize("platform", ["darwin", "win32", "freebsd14"])
def test_ebpf_needs_linux(platform: str) -> None:
    """The documented message, word for word, everywhere else."""
    with pytest.raises(ConfigurationError) as caught:
        resolve_mode("ebpf", platform)
    assert str(caught.value) == "eBPF mode is not supported on this platform."


@pytest.mark.parametrize("mode", ["ebpf", "proxy"])
def test_a_mode_that_is_not_built_is_an_error(mode: str) -> None:
    """A mode that was asked for by name is refused, never replaced by a weaker one."""
    with pytest.raises(ConfigurationError, match=f"mode {mode} is not available in this build; use mode sdk-only"):
        resolve_mode(mode, "linux")


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_auto_says_what_it_became(platform: str) -> None:
    """`auto` resolves to the one layer that exists, with a note; `sdk-only` needs none."""
    mode, note = resolve_mode("auto", platform)
    assert mode == "sdk-only"
    assert note is not None
    assert "sdk-only" in note
    assert resolve_mode("sdk-only", platform) == ("sdk-only", None)


@pytest.mark.parametrize("mode", ["", "EBPF", "kernel"])
def test_an_unknown_mode_is_no_mode(mode: str) -> None:
    """A word that is none of the four is refused here too."""
    with pytest.raises(ConfigurationError, match="mode must be one of: auto, ebpf, proxy, sdk-only"):
        resolve_mode(mode)
