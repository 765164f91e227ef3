"""The checks, in the order in which they are shown."""

from __future__ import annotations

from aasm_py.doctor import (
    adapters,
    control_plane,
    gateway,
    home,
    modes,
    runtime,
    settings,
    start_up,
    storage,
    target,
)
from aasm_py.doctor.look import Check

# `target` looks only where there is a command to look at.
CHECKS: tuple[Check, ...] = (
    *settings.CHECKS,
    *home.CHECKS,
    *storage.CHECKS,
    *gateway.CHECKS,
    *control_plane.CHECKS,
    *runtime.CHECKS,
    *start_up.CHECKS,
    *adapters.CHECKS,
    *modes.CHECKS,
    *target.CHECKS,
)
