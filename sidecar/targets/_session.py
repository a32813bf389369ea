"""What every call to an engine has in common: the version it is made in, and what an answer means for the caller.

It knows no call but those by which it gets to know the engine, and decides nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeVar

import requests

from sidecar.errors import Misconfigured, Transient, Unreachable
from sidecar.targets import podman
from sidecar.targets._answers import an_object, api_version_and_date, nothing
from sidecar.targets._wire import EngineError, Silent, Wire

Json = dict[str, Any]
T = TypeVar("T")

OLDEST_API: Final = (1, 41)
"""Engine 20.10; older ones do not know the platform of a container to be created."""
STOP_MARGIN_SECONDS = 30
# Podman answers 500 and these words: to a create, and to a rename.
_NAME_TAKEN = ("that name is already in use", "UNIQUE constraint failed: ContainerConfig.Name")


class NameConflict(EngineError):
    """Another container has the name."""


class Session:
    """One engine, spoken with in the newest version that it knows.

    Attributes:
        url: the engine's address.
        api_version: the newest that the engine speaks; with an older one it drops what that did not know.
        platform: operating system and architecture of the engine, as images name them: ``linux/amd64``.
        is_podman: it is Podman behind its Docker-compatible API.
    """

    def __init__(self, wire: Wire) -> None:
        self.url = wire.url
        self.api_version = OLDEST_API
        self.platform = ""
        self.is_podman = False
        self._wire = wire

    def close(self) -> None:
        """Cut off what streams, and wait for nothing."""
        self._wire.close()

    async def introduce(self) -> None:
        """Find out which API the engine speaks, and on which platform.

        Raises:
            Unreachable: it does not answer.
            Misconfigured: it is too old.
        """
        version = await self.version()
        self._adopt(str(version.get("ApiVersion")))
        self.is_podman = podman.is_podman(version)
        self.platform = f"{version.get('Os', 'linux')}/{version.get('Arch', 'amd64')}"
        if version.get("Arch") == "arm":  # which 32 bits these are stands in the name of the machine only
            machine = str((await self.fetch("GET", "/info", use=an_object)).get("Architecture"))
            self.platform += "/v6" if machine.startswith("armv6") else "/v7"

    async def greet(self) -> float:
        """Ask whether the engine is there, and notice when it has become another version; give its clock."""
        spoken, now = await self._wire.fetch("GET", "/_ping", use=api_version_and_date)
        if spoken:
            self._adopt(spoken)
        return now

    async def version(self) -> Json:
        """Give the engine's version, platform and the APIs it speaks."""
        return await self._wire.fetch("GET", "/version", use=an_object)

    async def fetch(
        self,
        method: str,
        path: str,
        *,
        use: Callable[[requests.Response], T],
        version: tuple[int, int] | None = None,
        **request: Any,
    ) -> T:
        """Make a call and give what ``use`` makes of the answer; see ``Wire.fetch``."""
        return await self._wire.fetch(method, _versioned(path, version or self.api_version), use=use, **request)

    def stream(
        self, method: str, path: str, *, use: Callable[[Iterator[Json]], T], **request: Any
    ) -> AbstractAsyncContextManager[asyncio.Future[T]]:
        """Make a call whose answer is one JSON object a line; see ``Wire.stream``."""
        return self._wire.stream(method, _versioned(path, self.api_version), use=use, **request)

    async def act(self, method: str, path: str, **request: Any) -> None:
        """Make a call whose answer says nothing but that it was done."""
        await self.fetch(method, path, use=nothing, **request)

    async def act_patiently(self, path: str, *, grace_seconds: int) -> None:
        """Make a call that takes as long as a container takes to stop.

        Raises:
            Transient: it takes much longer than the grace; the engine goes on with it.
        """
        seconds = max(grace_seconds, 0) + STOP_MARGIN_SECONDS
        try:
            await self.act("POST", path, params={"t": grace_seconds}, read_seconds=seconds)
        except Silent as error:
            raise Transient(str(error)) from error

    async def name(self, path: str, *, use: Callable[[requests.Response], T], **request: Any) -> T:
        """Make a call that gives a container its name.

        Raises:
            NameConflict: the name is taken.
        """
        try:
            return await self.fetch("POST", path, use=use, **request)
        except EngineError as error:
            if error.status == requests.codes.conflict or any(words in str(error) for words in _NAME_TAKEN):
                raise NameConflict(str(error), status=error.status) from error
            raise

    async def ask_podman(self, path: str) -> Json | None:
        """Ask Podman by its own API, which says more; Docker has none."""
        return await self._wire.fetch("GET", podman.NATIVE_PATH + path, use=an_object) if self.is_podman else None

    def _adopt(self, spoken: str) -> None:
        major, _, minor = spoken.partition(".")
        if not (major.isdecimal() and minor.isdecimal()):
            message = f"reading the engine's API version at {self.url!r}: {spoken!r} is none"
            raise Unreachable(message)
        if (version := (int(major), int(minor))) < OLDEST_API:
            message = f"using the engine at {self.url!r}: it speaks API {spoken}; 1.41 (Docker 20.10) is needed"
            raise Misconfigured(message)
        self.api_version = version


def _versioned(path: str, version: tuple[int, int]) -> str:
    return "/v{}.{}".format(*version) + path


def filtered(filters: Mapping[str, list[str]] | None) -> Json:
    """Write what a list is to hold as the engine takes it."""
    return {"filters": json.dumps(filters)} if filters else {}
