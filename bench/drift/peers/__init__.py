"""Runners of the other libraries, each executed by the Python of its own environment."""
