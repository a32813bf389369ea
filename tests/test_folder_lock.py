"""One process has a state folder."""

import os
from pathlib import Path

import pytest

from sidecar.errors import Misconfigured
from sidecar.folder_lock import LOCK_NAME, lock_folder


def test_a_locked_folder_names_its_process(tmp_path: Path):
    """The second is told which process has the folder, and changes nothing; when the first lets go it is free."""
    lock = lock_folder(tmp_path)
    with pytest.raises(Misconfigured, match=rf"another Sidecar uses it \(process {os.getpid()}\)"):
        lock_folder(tmp_path)
    assert (tmp_path / LOCK_NAME).read_text() == f"{os.getpid()}\n"
    os.close(lock)
    os.close(lock_folder(tmp_path))


def test_a_longer_number_leaves_no_rest(tmp_path: Path):
    """What an earlier process wrote is gone, whatever its length."""
    (tmp_path / LOCK_NAME).write_text("123456789012345\n")
    os.close(lock_folder(tmp_path))
    assert (tmp_path / LOCK_NAME).read_text() == f"{os.getpid()}\n"


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where nothing can be locked two daemons could not be told apart, so none starts."""

    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(Misconfigured, match="No locks available; it has to lie on a local disk"):
        lock_folder(tmp_path)
