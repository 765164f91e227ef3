"""The launcher `aasm-run` and the command line `aasm-py`."""
