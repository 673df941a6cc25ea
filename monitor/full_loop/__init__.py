"""``segwatch demo --full-loop``: from a shift to a better model; what is played and what is real: docs/adr/0006."""
