from collections.abc import Sequence

__version__: str

def evaluate(policies: Sequence[tuple[str, str]], call_json: str) -> str:
    """Return the verdict on a call under some policies, as JSON.

    `policies` are pairs of a file name for messages and the YAML text. `call_json` is a mapping with `kind` (`tool`),
    `tool`, `args` (the canonical arguments) and optionally `framework` and `server`. The verdict is a mapping with
    `decision`, `reason`, `rule`, `policy` and `code`; the strictest of all policies gives it. The policies are loaded
    anew with each call. Other threads run meanwhile.

    Raises `agent_assembly.exceptions.PolicyError` when a policy does not check, with one line of the message and one
    mapping of `diagnostics` for each finding, and when `call_json` is not such a mapping.
    """
