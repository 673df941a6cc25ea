"""What every receiver of actions offers, and the settings that all share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol

import msgspec

from monitor.errors import SegwatchError

Event = Mapping[str, Any]
"""A CloudEvent in the JSON format: attributes beside ``data``."""

Takes = Literal["relabel", "retrain", "rollback", "promote", "alert"]


class ReceiverError(SegwatchError):
    """An action could not be delivered this time. ``after_s``: the receiver asked to be left alone for so long."""

    def __init__(self, message: str, after_s: float | None = None) -> None:
        super().__init__(message)
        self.after_s = after_s


class ReceiverSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry of the receivers' file. Secrets are never in it: it names files, or environment variables."""

    name: Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9_-]{0,62}$")]
    url: str = ""
    actions: tuple[Takes, ...] = ("relabel", "retrain", "rollback", "promote")
    models: tuple[str, ...] = ()
    """Only actions about these models; empty means all."""
    token_file: str = ""
    token_env: str = ""
    """Bearer token."""
    ca_file: str = ""
    """Certificates that the receiver's is checked against, in PEM; empty means the system's."""
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=60)] = 10.0
    """Of each request, as a whole."""
    attempts: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 60
    """After so many it is given up."""


class Receiver(Protocol):
    """Takes actions. Used by one thread only.

    An action may come again after a crash, with the same id: where the other side can tell, it must not act twice.
    """

    def deliver(self, event: Event) -> str:
        """Return once the action has arrived, with what the receiver made of it, for people.

        Raises ReceiverError; SettingsError where a secret is gone.
        """

    def close(self) -> None:
        """Let go of connections."""
