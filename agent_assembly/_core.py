"""The native core under its public name; ImportError where the distribution `agent-assembly-core` is missing."""

try:
    from agent_assembly_core._core import __version__, evaluate
except ImportError as error:
    raise ImportError(
        "the native core is not installed; type: pip install 'agent-assembly[runtime]'", name="agent_assembly._core"
    ) from error

__all__ = ["__version__", "evaluate"]
