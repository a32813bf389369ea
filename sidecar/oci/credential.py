"""What one registry lets us in with. Nothing here prints a secret."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sidecar.core.image import DOCKER_HUB

# Docker's name for Docker Hub wherever it keeps or hands over credentials, ever since there was only one registry.
DOCKER_HUB_KEY = "https://index.docker.io/v1/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A user name and password, or an identity token, for one registry.

    Attributes:
        registry: host, and port where there is one, as in an image reference.
        identity_token: a refresh token of OAuth 2; where there is one it is used instead of the password.
    """

    registry: str
    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def auth_config(self) -> dict[str, str]:
        """Write it as the engine wants it for a pull from this registry (``X-Registry-Auth``)."""
        address = server_address(self.registry)
        if self.identity_token:
            return {"identitytoken": self.identity_token, "serveraddress": address}
        return {"username": self.username, "password": self.password, "serveraddress": address}

    def basic(self) -> str:
        """Write it as an ``Authorization`` header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


# Asks for what is configured for a registry; None: nothing is, so it is asked anonymously.
# It raises Refused or Transient where something is configured that cannot be read.
FindCredential = Callable[[str], Awaitable[Credential | None]]


def server_address(registry: str) -> str:
    """Give the name under which Docker keeps a registry's credentials."""
    return DOCKER_HUB_KEY if registry == DOCKER_HUB else registry
