"""What the studio is told: where it listens (fixed while it runs), and what an admin may change.

The admin's settings are kept in the store, so that they move with it.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from plaudit.records.errors import UserError


class StudioSettings(BaseModel):
    """What an admin may change while people work."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    strength: bool = Field(
        default=False, description="ask how much better, 1 to 9, after a preference"
    )
    prefetch: int = Field(
        default=3,
        ge=1,
        le=30,
        description="offers that a page holds at once; more last longer offline",
    )
    guidelines: str | None = Field(
        default=None, max_length=100_000, description="what to look for, in Markdown; G shows it"
    )
    overlap: int = Field(default=1, ge=1, le=100, description="votes wanted for an item")
    repeat_share: float = Field(
        default=0.1, ge=0, le=0.5, description="share of offers that are an item of before, swapped"
    )
    uniform_share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="share of offers drawn uniformly; agreement is of these",
    )
    lease_seconds: float = Field(
        default=600, ge=1, le=86_400, description="how long an offer is kept for one person"
    )


@dataclass(frozen=True)
class Serving:
    """Where the studio listens, under which name people reach it, and where runs are kept."""

    host: str = "127.0.0.1"
    port: int = 8080
    public: str | None = None
    """The address people use where it is another, as https://studio.example.org behind a proxy."""
    runs: Path = Path("runs")

    @cached_property
    def address(self) -> str:
        """What links begin with."""
        if self.public is not None:
            return self.public.rstrip("/")
        host = self.host
        if host in ("0.0.0.0", "::"):
            host = socket.gethostname()
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @cached_property
    def is_secure(self) -> bool:
        """Whether people's browsers speak TLS, to a proxy in front."""
        return self.address.startswith("https://")

    @cached_property
    def cookie(self) -> str:
        """Cookies do not know ports: two studios of one machine need two names."""
        return "__Host-plaudit" if self.is_secure else f"plaudit-{self.port}"

    @cached_property
    def is_local(self) -> bool:
        """Whether nobody beyond this machine can reach the port."""
        return is_loopback(self.host)

    def answers_to(self, host: str) -> bool:
        """Whether a Host header names this studio.

        A page elsewhere can have its own name lead to our address (DNS rebinding), and the browser
        then takes our answers for its own. It cannot make the Host header say another name.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if self.public is not None and name == urlsplit(self.public).hostname:
            return True
        if self.is_local:
            return name in ("localhost", "127.0.0.1", "::1", self.host)
        if name in ("localhost", self.host, socket.gethostname().lower()):
            return True
        try:  # of a number no other page can be the owner
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.host in ("0.0.0.0", "::")


def is_loopback(host: str) -> bool:
    """Whether an address to listen at is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked_public(address: str) -> str:
    """The address that people use, or UserError."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise UserError(
            f"--public is {address!r}, expected an address such as https://studio.example.org"
        )
    return address.rstrip("/")
