"""The kernel's calls for namespaces that Python 3.11 does not offer."""

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

NEW_MOUNTS = 0x00020000
NEW_HOSTNAME = 0x04000000
NEW_IPC = 0x08000000
NEW_PROCESSES = 0x20000000
NEW_NETWORK = 0x40000000

_SET_INTERFACE_FLAGS = 0x8914
_SET_INTERFACE_ADDRESS = 0x8916
_INTERFACE_UP = 0x1

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Leave the namespaces of these kinds for new ones."""
    _succeed(_libc.unshare(flags), "unshare")


def enter_network(namespace: int) -> None:
    """Move the calling thread into an open network namespace."""
    _succeed(_libc.setns(namespace, NEW_NETWORK), "setns")


@contextmanager
def network(namespace: int) -> Iterator[None]:
    """Let the calling thread make sockets in a namespace; a socket stays where it was made."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter_network(namespace)
        try:
            yield
        finally:
            enter_network(home)
    finally:
        os.close(home)


def raise_loopback(address: str) -> None:
    """Bring up the loopback interface of a new network namespace, with one more address for it."""
    up = struct.pack("16sH22x", b"lo", _INTERFACE_UP)
    more = struct.pack("16sH2x4s16x", b"lo:1", socket.AF_INET, socket.inet_aton(address))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_INTERFACE_FLAGS, up)
        fcntl.ioctl(any_socket, _SET_INTERFACE_ADDRESS, more)


def _succeed(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        message = f"Calling {call!r}: {os.strerror(number)}, root is needed"
        raise OSError(number, message)
