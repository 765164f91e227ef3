"""Adapters: where the tool calls of each framework pass, and what is put there."""
