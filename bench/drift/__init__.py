"""Drift detection against other libraries: one harness, the same windows and seeds (`python -m bench.drift`)."""
