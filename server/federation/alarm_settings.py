"""Who is told when a study waits, goes on or ends: the section ``[alarms]`` of the coordinator's settings."""

import shlex
from pathlib import PurePosixPath
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from common.plan.part import PlanPart

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


class AlarmsSection(PlanPart):
    """Empty: nobody is told.

    ``on_event``: a program with its arguments (an absolute path; no shell), which gets each event as JSON on standard
    input. ``webhook``: where each event is posted as JSON: an address of this machine, or ``https`` to a host that
    ``webhook_hosts`` (separated by commas) names. ``after_s``: how long a study waits before anybody is told.
    """

    on_event: Annotated[str, Field(max_length=4096)] = ""
    webhook: Annotated[str, Field(max_length=2048)] = ""
    webhook_hosts: Annotated[str, Field(max_length=4096)] = ""
    after_s: Annotated[float, Field(ge=0, le=86_400)] = 60.0

    @property
    def hosts(self) -> set[str]:
        """The hosts beyond this machine to which events may go."""
        return {host.strip().lower() for host in self.webhook_hosts.split(",") if host.strip()}

    @property
    def command(self) -> list[str]:
        """The program and its arguments; empty where none is named."""
        return shlex.split(self.on_event)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.on_event:
            try:
                words = self.command
            except ValueError as error:
                raise ValueError(f"on_event cannot be split into words ({error}); close each quotation mark") from None
            if not words or not PurePosixPath(words[0]).is_absolute():
                raise ValueError("on_event must begin with the absolute path of a program")
        if self.webhook:
            self._check_webhook()
        elif self.webhook_hosts:
            raise ValueError("webhook_hosts has no effect without webhook; remove it, or set webhook")
        return self

    def _check_webhook(self) -> None:
        try:
            parts = urlsplit(self.webhook)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise ValueError(f"webhook = {self.webhook!r} is no address") from None
        del port  # read, so that one that is no number is noticed
        if parts.username or parts.password or not host:
            raise ValueError(
                "webhook must name a host, and neither user nor password: this file is no place for secrets"
            )
        if host in LOOPBACK and parts.scheme in {"http", "https"}:
            return
        if parts.scheme != "https" or host not in self.hosts:
            raise ValueError(
                f"webhook goes to {host!r}: allowed are addresses of this machine, and https to a host in webhook_hosts"
            )
