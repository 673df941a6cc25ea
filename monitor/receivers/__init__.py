"""Whom actions are delivered to over HTTP. A new preset is one file here and one line in ``PRESETS``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PRESETS: Final[Mapping[str, str]] = {
    "airflow": "Airflow",
    "argo": "Argo",
    "generic": "Webhook",
    "github": "GitHub",
    "mlflow": "Mlflow",
}
"""Module in this folder -> the class in it that implements ``monitor.receivers.protocol.Receiver``; its settings are
the module's ``Settings``, and ``preset`` in the receivers' file is the module's name."""
