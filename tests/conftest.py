"""What all tests share: a quiet environment, and Hypothesis with fixed seeds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before numpy and torch are loaded: on shared cores two threads each are slower than one.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
# A developer's own settings must not decide how tests end.
for _variable in [name for name in os.environ if name.startswith("SEGWATCH_")]:
    del os.environ[_variable]

# HYPOTHESIS_PROFILE=thorough looks for new examples; the default repeats the same ones everywhere.
settings.register_profile("fixed", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the project."""
    return Path(__file__).resolve().parent.parent
