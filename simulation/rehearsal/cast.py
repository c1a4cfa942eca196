"""Who takes part in a rehearsal, where their things lie, and on which ports they listen."""

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FEDERATION: Final = "rehearsal"
STUDY: Final = "lungs"
LEAST_CAST: Final = 3  # fewer than three updates in a sum would show one site's to another
LARGEST_CAST: Final = 8


@dataclass(frozen=True)
class Ports:
    """Ports on 127.0.0.1, free a moment ago; ``runtimes``: the SuperNode of each site."""

    superlink: int
    gateway: int
    runtimes: tuple[int, ...]


@dataclass(frozen=True)
class Cast:
    """A coordinator and its hospitals in one folder. Everything a party owns lies in a folder of its own."""

    place: Path
    sites: tuple[str, ...]
    ports: Ports

    @property
    def coordinator(self) -> Path:
        """The federation folder."""
        return self.place / "coordinator"

    @property
    def post(self) -> Path:
        """What travels by post or mail: enrolments, kit, plan, model."""
        return self.place / "post"

    @property
    def scans(self) -> Path:
        """The hospitals' scans, each in a folder of its own."""
        return self.place / "scans"

    @property
    def study(self) -> Path:
        """The study's folder at the coordinator."""
        return self.coordinator / "studies" / STUDY

    @property
    def plan(self) -> Path:
        """The study plan."""
        return self.study / "study.toml"

    @property
    def release(self) -> Path:
        """The exported model."""
        return self.post / "release"

    def site(self, name: str) -> Path:
        """Return a hospital's site folder."""
        return self.place / name


def free_ports(count: int) -> tuple[int, ...]:
    """Return different ports of 127.0.0.1 that nobody listens on now.

    All are held until the last one is found, so that none comes twice; somebody else may still be faster.
    """
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return tuple(one.getsockname()[1] for one in held)
    finally:
        for one in held:
            one.close()


def cast_of(place: Path, sites: int) -> Cast:
    """Return the cast of a rehearsal with so many hospitals."""
    superlink, gateway, *runtimes = free_ports(2 + sites)
    names = tuple(f"hospital-{number}" for number in range(1, sites + 1))
    return Cast(place, names, Ports(superlink, gateway, tuple(runtimes)))
