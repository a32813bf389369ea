"""Run a command that dies with whoever holds the other end of a pipe, even if that one is killed.

`python3 -m tests.testbed.leash FD COMMAND...` becomes the command, so its process id is the
command's; a watcher stays behind and kills it when the pipe's writing end is closed.
"""

import os
import select
import signal
import sys


def main(arguments: list[str]) -> None:
    """Fork the watcher, then become the command."""
    leash = int(arguments[0])
    watched = os.pidfd_open(os.getpid())
    if os.fork() == 0:
        _watch(leash, watched)
        os._exit(0)
    os.close(leash)
    os.execvp(arguments[1], arguments[1:])  # noqa: S606 - no shell is wanted


def _watch(leash: int, watched: int) -> None:
    os.setsid()
    poll = select.poll()
    poll.register(leash, select.POLLIN)
    poll.register(watched, select.POLLIN)
    ended = {descriptor for descriptor, _ in poll.poll()}
    if watched not in ended:
        signal.pidfd_send_signal(watched, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
