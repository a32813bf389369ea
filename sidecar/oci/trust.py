"""Whom a connection trusts: TLS contexts by host, and the hosts that may be spoken to without TLS."""

from __future__ import annotations

import ssl
from ipaddress import ip_address
from pathlib import Path

from sidecar.errors import Refused

_ANY = ""


class Trust:
    """Docker's rules: loopback and listed hosts are insecure (plain HTTP, any certificate), all others are verified.

    Args:
        insecure: hosts, with or without port, as Docker's ``insecure-registries``.
        ca_file: more authorities than the system's, in one PEM file.
        certs_folder: Docker's ``certs.d``: for each ``host[:port]`` a folder with ``*.crt`` (authorities) and
            ``*.cert`` with ``*.key`` (our own certificate).
    """

    def __init__(self, *, insecure: frozenset[str], ca_file: Path | None, certs_folder: Path | None) -> None:
        self._insecure = frozenset(host.lower() for host in insecure)
        self._ca_file = ca_file
        self._certs_folder = certs_folder
        self._contexts: dict[str, ssl.SSLContext] = {}

    def is_insecure(self, host: str) -> bool:
        """Say whether a ``host[:port]`` may be spoken to in plain HTTP, or whatever certificate it shows."""
        return is_loopback(host) or not self._insecure.isdisjoint({host, _without_port(host)})

    def context(self, host: str) -> ssl.SSLContext:
        """Give the TLS context for a ``host[:port]``.

        Raises:
            Refused: a file of its certificates cannot be read.
        """
        folder = self._folder(host)
        # Reading the system's authorities takes a while, so hosts without an own rule share one context.
        key = _ANY if folder is None and not self.is_insecure(host) else host
        if key not in self._contexts:
            self._contexts[key] = self._make_context(folder, is_verified=not self.is_insecure(host))
        return self._contexts[key]

    def forget(self, host: str) -> None:
        """Read the files anew next time: TLS failed, and a renewed certificate may be why it will not."""
        for key in (_ANY, host):
            self._contexts.pop(key, None)

    def _folder(self, host: str) -> Path | None:
        # A host of nothing but dots would be another folder than one of a host.
        if self._certs_folder is None or not host.strip("."):
            return None
        folder = self._certs_folder / host
        return folder if folder.is_dir() else None

    def _make_context(self, folder: Path | None, *, is_verified: bool) -> ssl.SSLContext:
        context = ssl.create_default_context() if is_verified else _unverified()
        if self._ca_file is not None:
            _load_authorities(context, self._ca_file)
        if folder is not None:
            for path in sorted(folder.glob("*.crt")):
                _load_authorities(context, path)
            for path in sorted(folder.glob("*.cert")):
                _load_own(context, path)
        return context


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _load_authorities(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except OSError as error:  # ssl.SSLError is one
        msg = f"reading the certificate authorities in {str(path)!r}: {error.strerror or error}"
        raise Refused(msg) from None


def _load_own(context: ssl.SSLContext, path: Path) -> None:
    key = path.with_suffix(".key")
    try:
        context.load_cert_chain(path, key, password=lambda: "")  # never ask the terminal
    except OSError as error:
        msg = f"reading our certificate {str(path)!r} and its key {str(key)!r}: {error.strerror or error}"
        raise Refused(msg) from None


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0].removeprefix("[")
    return host.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Say whether a ``host[:port]`` is whoever asks."""
    name = _without_port(host)
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
