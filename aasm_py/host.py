"""The machine as a plan sees it: files, Pythons, settings and gateways. It looks, and changes nothing.

Imported before the user's program: see the import rules.
"""

from __future__ import annotations

import os
import sys

from aasm_py.plan import Refusal, Sdk
from agent_assembly.exceptions import ConfigurationError, GatewayError
from agent_assembly.launching import Files, NotStarted, locate, resolve_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from agent_assembly.exceptions import AssemblyError
    from agent_assembly.launching import Gateway, Settings, Tried

POLICY_LIMIT = 768 << 10


class Host(Files):
    """This machine; tests give their own."""

    def settings(self, arguments: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
        return resolve_settings(arguments, environ)

    def sdk(self, interpreter: str, flags: Sequence[str], environ: Mapping[str, str]) -> Sdk:
        """Say whether that Python can import the SDK; the launcher's own surely can."""
        if interpreter == sys.executable:
            return Sdk(True, "the launcher's own environment", sys.version_info[:2])
        from aasm_py.preflight import look_for_sdk

        return look_for_sdk(interpreter, flags, environ)

    def gateway(self, settings: Settings, tried: list[Tried]) -> tuple[Gateway | None, AssemblyError | None]:
        """Return the gateway that answers; nothing when one may be started; else why there is none."""
        try:
            return locate(settings, tried, may_start=False), None
        except NotStarted:
            return None, None
        except GatewayError as error:
            return None, error
        except ConfigurationError as error:
            if str(error) != "gateway_url is required":
                raise Refusal(str(error), check="gateway", remedy="aasm-py doctor") from None
            return None, error

    def policy(self, path: str) -> tuple[str, str]:
        """Return name and text of the policy at `path`; the gateway checks what it says."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = b""
                while chunk := os.read(descriptor, 1 << 16):
                    data += chunk
                    if len(data) > POLICY_LIMIT:
                        raise _unusable(path, f"is larger than {POLICY_LIMIT} bytes")
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _unusable(path, f"cannot be read: {error.strerror}") from None
        try:
            return path, data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _unusable(path, f"is not UTF-8 (byte {error.start})") from None

    def new_run_id(self) -> str:
        return f"run-{os.urandom(8).hex()}"

    def bootstrap_directory(self) -> str:
        """The directory that holds our sitecustomize: beside this file as installed, else that of the checkout."""
        here = os.path.dirname(os.path.abspath(__file__))
        installed = os.path.join(here, "_bootstrap")
        if os.path.isdir(installed):
            return installed
        return os.path.join(os.path.dirname(here), "sitecustomize")


def _unusable(path: str, why: str) -> Refusal:
    return Refusal(f"policy {path} {why}", check="policy of the run", remedy="give --policy a policy document")
