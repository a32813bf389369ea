"""Processes that are forked behave as those that are started."""

import signal
from pathlib import Path

from tests.integration.forks import forks


def test_a_forked_command_has_everything_of_its_own(tmp_path: Path):
    """Environment, folder, output and exit status are those that it was given."""
    (tmp_path / ".env").write_text("SIDECAR_TOKEN=0123456789abcdefgh\n")
    for arguments, environ, status, output in (
        (["token"], {}, 0, "0123456789abcdefgh\n"),
        (["check"], {"SIDECAR_NONSENSE": "1"}, 2, "SIDECAR_NONSENSE is not known"),
        (["nonsense"], {}, 2, "invalid choice"),
    ):
        log = tmp_path / f"{arguments[0]}.log"
        started = forks().start(arguments, environ={"PATH": "/bin", **environ}, cwd=tmp_path, log=log)
        assert started.wait(10) == status
        assert started.poll() == status
        assert output in log.read_text()


def test_a_forked_command_is_ended_by_a_signal(tmp_path: Path):
    """As from `subprocess` the status is the negative number; one that has ended already is left alone."""
    environ = {"PATH": "/bin", "SIDECAR_STATE_DIR": str(tmp_path), "SIDECAR_PORT": "0"}
    started = forks().start(["run"], environ=environ, cwd=tmp_path, log=tmp_path / "log")
    assert started.poll() is None
    started.kill()
    assert started.wait(10) == -signal.SIGKILL
    started.kill()
