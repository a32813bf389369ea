"""Stands before a registry and cuts the connections that ask for layers, as a registry does that dies in a pull."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

_READ_BYTES = 1 << 16
_LAYERS = b"/blobs/"


class CuttingProxy:
    """One port in front of a registry's.

    Attributes:
        cuts: whether a connection is cut as soon as it asks for a layer.
        cut: set once one was.
    """

    def __init__(self, registry_port: int, port: int) -> None:
        self.port = port
        self.cuts = False
        self.cut = threading.Event()
        self._registry_port = registry_port
        self._listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, name="cutting proxy", daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), name="cutting proxy", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._registry_port)) as registry:
            threading.Thread(target=_carry, args=(registry, client), name="cutting proxy", daemon=True).start()
            while data := client.recv(_READ_BYTES):
                if self.cuts and _LAYERS in data:
                    self.cut.set()
                    break
                registry.sendall(data)
            registry.shutdown(socket.SHUT_RDWR)
            client.shutdown(socket.SHUT_RDWR)


def _carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # one of the two sides is gone
        while data := source.recv(_READ_BYTES):
            target.sendall(data)
