"""The native core of Agent Assembly. Its public name is `agent_assembly._core`, of the pure distribution."""
