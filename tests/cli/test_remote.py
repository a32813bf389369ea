"""Commands that ask the daemon: how they reach it, what they print, and how they end."""

import contextlib
import http.client
import io
import json
import re
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sidecar.cli import main, remote
from sidecar.cli.daemon import Event
from sidecar.cli.follow import Followed
from sidecar.cli.output import say_table
from sidecar.core.decision import Hold
from sidecar.core.order import Member, order
from sidecar.core.rollout import Phase
from sidecar.errors import Transient
from tests.cli.served_daemon import ADMIN_TOKEN, ServedDaemon, served
from tests.web.fake_control import NEW, OLD, ROLLOUT, SPEC, TARGET

Run = Callable[..., int]
Output = pytest.CaptureFixture[str]
OURS = {"target": "docker:web", "delivery_ids": ["delivery-2"]}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[ServedDaemon]:
    with served(tmp_path) as daemon:
        yield daemon


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(remote, "_RECONNECT_SECONDS", 0.005)

    def run(*argv: str, **environ: str) -> int:
        return main(argv, {"SIDECAR_STATE_DIR": str(tmp_path), **environ}, tmp_path)

    return run


class Terminal(io.StringIO):
    """Standard output that is a terminal; set in the test itself, for pytest sets its own between set-up and test."""

    def isatty(self) -> bool:
        return True

    @classmethod
    def opened(cls, monkeypatch: pytest.MonkeyPatch, width: int = 200) -> "Terminal":
        terminal = cls()
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        return terminal

    @property
    def plain(self) -> str:
        """What is read, without colours and movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())

    @property
    def letters(self) -> Counter[str]:
        """What is read, however it is laid out."""
        return Counter(re.sub(r"[\s\u2500]", "", self.plain))


@pytest.mark.parametrize(
    "command", [["targets"], ["show", "web"], ["plan"], ["update", "web"], ["update", "web", "--wait"], ["history"]]
)
def test_without_a_daemon_it_says_how_to_start_one(run: Run, capsys: Output, command: list[str]):
    """No daemon is exit status 3, and the message says where it was sought and what to do."""
    assert run(*command) == 3
    error = capsys.readouterr().err
    assert "control.sock" in error
    assert "sidecar run" in error
    assert "--server" in error


def test_targets_are_listed_with_the_reason(daemon: ServedDaemon, run: Run, capsys: Output):
    """Every target has its verdict, and what is not managed says why not."""
    assert run("targets") == 0
    header, web, db = capsys.readouterr().out.splitlines()
    assert header.split() == ["TARGET", "IMAGE", "RUNNING", "VERDICT", "WHY"]
    assert web.split()[:4] == ["docker:web", "docker.io/me/app:1", "sha256:111111111111", "rollout"]
    assert db.endswith("not managed: has no label sidecar.enable=true")


def test_a_target_is_shown_as_facts(daemon: ServedDaemon, run: Run, capsys: Output):
    """One fact a line under its name; what there is not is not named."""
    daemon.last = replace(ROLLOUT, phase=Phase.FAILED, reason="no space", recovery=("docker start web", "# done"))
    assert run("show", "web") == 0
    assert daemon.asked == [("show", "web", False)]
    facts = [tuple(re.split(r" {2,}", line)) for line in capsys.readouterr().out.splitlines()]
    assert facts[:4] == [
        ("target", "docker:web"),
        ("image", "docker.io/me/app:1"),
        ("image id", "sha256:9"),
        ("digests", OLD),
    ]
    assert ("last rollout", f"rollout-1 to {NEW}: failed: no space") in facts
    assert facts[-2:] == [("by hand", "docker start web"), ("", "# done")]


def test_what_makes_it_again_is_a_script(daemon: ServedDaemon, run: Run, capsys: Output):
    """What a shell runs are the commands; the create request stands in comments."""
    assert run("show", "web", "--spec") == 0
    assert daemon.asked == [("show", "web", True)]
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("#")] == list(SPEC.commands)
    request = [line.removeprefix("# ") for line in lines[1:] if line.startswith("#")]
    assert json.loads("\n".join(request)) == SPEC.request


def test_what_nothing_makes_again_is_a_failure(daemon: ServedDaemon, run: Run, capsys: Output):
    """A script that makes nothing is not taken for one that does."""
    daemon.spec = None
    assert run("show", "web", "--spec") == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("sidecar: docker:web: nothing makes it again")


def test_what_is_shown_is_given_to_programs(daemon: ServedDaemon, run: Run, capsys: Output):
    """As the API gives it."""
    assert run("show", "web", "--json") == 0
    assert json.loads(capsys.readouterr().out)["shown"][0]["previous_image"] == "sha256:8"


def test_what_is_not_there_is_not_shown(daemon: ServedDaemon, run: Run, capsys: Output):
    """The daemon's reason is the message."""
    assert run("show", "nothing") == 1
    assert "nothing is meant by 'nothing'" in capsys.readouterr().err


def test_a_plan_may_be_of_one(daemon: ServedDaemon, run: Run, capsys: Output):
    """What is named is passed on, and what is available is shown."""
    assert run("plan", "me/app:1") == 0
    assert daemon.asked == [("plan", "me/app:1")]
    assert "sha256:222222222222" in capsys.readouterr().out


def test_history_is_of_all_newest_first(daemon: ServedDaemon, run: Run, capsys: Output):
    """Rollouts and deliveries stand in one list, in the order of time."""
    assert run("history", "--limit", "5", "--target", "docker:web") == 0
    assert daemon.asked == [("history", 50, "docker:web")]
    _, rollout, delivery = capsys.readouterr().out.splitlines()
    assert "rolled_back" in rollout
    assert "refused" in delivery
    assert "pusher 'mallory' is not allowed" in delivery


def test_history_shows_when_a_phase_was_entered(daemon: ServedDaemon, run: Run, capsys: Output):
    """A rollout is recorded many times in one phase; people see the first."""
    daemon.recorded_at = [1700000003.0, 1700000002.0]
    assert run("history") == 0
    _, rollout, delivery = capsys.readouterr().out.splitlines()
    assert rollout.startswith("2023-11-14T22:13:22Z ")
    assert "dockerhub" in delivery


def test_history_is_of_what_the_daemon_takes_a_name_for(daemon: ServedDaemon, run: Run):
    """What a name means, a container or a service, is known where they run; it is passed on as it is written."""
    assert run("history", "--limit", "5", "--target", "web") == 0
    assert daemon.asked == [("history", 50, "web")]


def test_an_empty_history_says_so(daemon: ServedDaemon, run: Run, capsys: Output):
    """Where nothing happened, a person is told that it is not for want of looking."""
    daemon.recorded_at, daemon.deliveries = [], []
    assert run("history", "--target", "nope") == 0
    output = capsys.readouterr()
    assert output.out.split() == ["TIME", "WHO", "WHAT", "WHICH", "WHY"]
    assert output.err == "nothing is recorded of nope\n"


@pytest.mark.parametrize("command", [["targets"], ["plan"], ["history"], ["update", "web"], ["release", "web"]])
def test_json_is_what_the_api_says(daemon: ServedDaemon, run: Run, capsys: Output, command: list[str]):
    """With --json a program gets the API's own body; that of the history has the received bodies."""
    assert run(*command, "--json") == 0
    body = json.loads(capsys.readouterr().out)
    assert body
    if command == ["history"]:
        assert "mallory" in body["deliveries"][0]["body"]


def test_on_a_terminal_rows_are_a_table(daemon: ServedDaemon, run: Run, monkeypatch: pytest.MonkeyPatch):
    """People get a table."""
    terminal = Terminal.opened(monkeypatch)
    assert run("targets") == 0
    assert "\u2500\u2500" in terminal.getvalue()
    assert "docker:web" in terminal.getvalue()


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("command", ["targets", "plan", "history", "check"])
def test_a_table_fits_its_terminal(
    daemon: ServedDaemon, run: Run, monkeypatch: pytest.MonkeyPatch, command: str, width: int
):
    """No line is wider than the terminal, and nothing is left out for that."""
    terminal = Terminal.opened(monkeypatch, width)
    assert run(command) == 0
    assert max(map(len, terminal.plain.splitlines())) <= width
    wide = Terminal.opened(monkeypatch, 1000)
    assert run(command) == 0
    assert wide.letters - terminal.letters in (Counter(), Counter("WHY"))


def test_what_explains_a_row_goes_below_it_where_it_finds_no_room(monkeypatch: pytest.MonkeyPatch):
    """A narrow terminal shows references, digests and verdicts whole, and the reason under them over its full width."""
    rows = [["docker:web", "me/app:1", "hold", "waits for " + "somebody " * 9], ["docker:db", "me/db:1", "keep", ""]]
    terminal = Terminal.opened(monkeypatch, 60)
    say_table(("TARGET", "IMAGE", "VERDICT", "WHY"), rows, explained=True)
    assert terminal.plain.splitlines() == [
        "TARGET      IMAGE     VERDICT",
        "\u2500" * 29,
        "docker:web  me/app:1  hold",
        "    waits for somebody somebody somebody somebody somebody",
        "    somebody somebody somebody somebody",
        "docker:db   me/db:1   keep",
    ]


def test_a_cell_that_is_too_wide_goes_on_in_the_next_line(monkeypatch: pytest.MonkeyPatch):
    """Where no column is an explanation the widest gives way."""
    terminal = Terminal.opened(monkeypatch, 30)
    say_table(("SETTING", "VALUE"), [["SIDECAR_ALLOWED_REPOSITORIES", "me/*"]])
    assert terminal.plain.splitlines()[2:] == ["SIDECAR_ALLOWED_REPOSIT  me/*", "ORIES"]


def test_an_update_is_enqueued(daemon: ServedDaemon, run: Run, capsys: Output):
    """Without --wait it ends once the daemon has it."""
    assert run("update", "web") == 0
    assert capsys.readouterr().out == (
        "enqueued docker:web as delivery delivery-2; `sidecar history` shows what becomes of it\n"
    )


@pytest.mark.parametrize(
    "count, said",
    [(0, "nothing was held back"), (1, "1 digest may be tried again"), (2, "2 digests may be tried again")],
)
def test_a_release_says_what_may_be_tried_again(daemon: ServedDaemon, run: Run, capsys: Output, count: int, said: str):
    """The message that a failed digest is held with names this command."""
    daemon.released = count
    assert run("release", "docker:web") == 0
    assert daemon.asked == [("release", "docker:web")]
    assert capsys.readouterr().out.splitlines() == [
        f"docker:web: {said}",
        "enqueued docker:web as delivery delivery-3; `sidecar history` shows what becomes of it",
    ]


@pytest.mark.parametrize("wait", [[], ["--wait"]])
def test_an_update_of_nothing_fails(daemon: ServedDaemon, run: Run, capsys: Output, wait: list[str]):
    """What means no target is what was asked for and failed."""
    assert run("update", "nothing", *wait) == 1
    assert capsys.readouterr().err == "sidecar: nothing is meant by 'nothing'\n"


@pytest.mark.parametrize(
    "event, reason, status",
    [
        ("target.kept", "up to date", 0),
        ("rollout.succeeded", "", 0),
        ("rollout.rolled_back", "became unhealthy", 1),
        ("rollout.failed", "became unhealthy", 1),
        ("rollout.abandoned", "changed by somebody else", 1),
        ("target.held", "the registry is down", 1),
    ],
)
def test_waiting_ends_as_the_update_ends(
    daemon: ServedDaemon, run: Run, capsys: Output, event: str, reason: str, status: int
):
    """With --wait the exit status is that of the update; a program gets each event as a line of JSON."""
    daemon.tells = [
        ("target.kept", {"target": "docker:web", "delivery_ids": ["another"]}),
        ("target.kept", {"target": "docker:web", "cause": "resync", "reason": "up to date"}),
        ("target.kept", {"target": "docker:db", "delivery_ids": ["delivery-2"]}),
        ("rollout.started", OURS),
        ("pull.progressed", {"target": "docker:web", "current_bytes": 1, "total_bytes": 2}),
        (event, OURS | {"reason": reason}),
    ]
    assert run("update", "web", "--wait") == status
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["rollout.started", "pull.progressed", event]


def test_waiting_is_for_every_target(daemon: ServedDaemon, run: Run):
    """One that failed among others is a failure, and the others are waited for."""
    daemon.targets_of_update = ("docker:web", "docker:db")
    daemon.tells = [
        ("target.held", OURS | {"reason": "down"}),
        ("target.kept", {"target": "docker:db", "delivery_ids": ["delivery-2", "x"]}),
    ]
    assert run("update", "web", "--wait") == 1


def test_on_a_terminal_progress_is_drawn(daemon: ServedDaemon, run: Run, monkeypatch: pytest.MonkeyPatch):
    """People see how far the pull is, and in the end the reason; control characters of others are not drawn."""
    terminal = Terminal.opened(monkeypatch)
    daemon.tells = [
        ("rollout.started", OURS),
        (
            "pull.progressed",
            {"target": "docker:web", "current_bytes": 5, "total_bytes": 10, "layers_done": 1, "layers_total": 3},
        ),
        ("image.pulled", {"target": "docker:web"}),
        ("rollout.stepped", {"target": "docker:web", "phase": "rolling_back", "step": "MoveTag"}),
        ("rollout.rolled_back", OURS | {"reason": "became \x1b[31munhealthy"}),
    ]
    assert run("update", "web", "--wait") == 1
    assert "FAILED  docker:web: rolled back: became ?[31munhealthy" in terminal.getvalue()
    assert "\x1b[" in terminal.getvalue()


@pytest.mark.parametrize("environ", [{"TERM": "dumb"}, {"TERM": ""}, {"TERM": "xterm", "NO_COLOR": "1"}])
def test_where_nothing_can_be_drawn_a_person_reads_lines(
    daemon: ServedDaemon, run: Run, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
):
    """A dumb terminal, and one without colours, gets a line for whatever is new, and in the end how it ended."""
    terminal = Terminal.opened(monkeypatch)
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    layers = {"target": "docker:web", "layers_total": 2}
    daemon.tells = [
        ("rollout.started", OURS),
        ("pull.progressed", {"target": "docker:web", "layers_total": 0, "layers_done": 0}),
        *(("pull.progressed", layers | {"layers_done": done}) for done in (0, 0, 1, 1, 2)),
        ("rollout.stepped", {"target": "docker:web", "phase": "updating", "step": "Start"}),
        ("rollout.rolled_back", OURS | {"reason": "became \x1b[31munhealthy"}),
    ]
    assert run("update", "web", "--wait") == 1
    assert terminal.getvalue().splitlines() == [
        "docker:web: started",
        "docker:web: pulling",
        "docker:web: pulling, 0 of 2 layers",
        "docker:web: pulling, 1 of 2 layers",
        "docker:web: pulling, 2 of 2 layers",
        "docker:web: updating: started; it is watched until it is healthy",
        "FAILED  docker:web: rolled back: became ?[31munhealthy",
    ]


def test_a_stream_that_breaks_off_is_taken_up_again(daemon: ServedDaemon, run: Run):
    """A daemon that starts anew, or a proxy that cuts the stream, loses no event."""
    daemon.ends_stream_after = 1
    daemon.tells = [("rollout.started", OURS), ("rollout.succeeded", OURS)]
    assert run("update", "web", "--wait") == 0


def test_a_daemon_that_stays_away_is_unreachable(daemon: ServedDaemon, run: Run, monkeypatch: pytest.MonkeyPatch):
    """Following ends some time, with the status that says who is gone."""
    monkeypatch.setattr(remote, "_MOST_RECONNECTS", 2)
    daemon.ends_stream_after, daemon.goes_away = 0, True
    daemon.tells = [("rollout.started", OURS)]
    assert run("update", "web", "--wait") == 3


def test_a_stream_that_ends_again_and_again_is_given_up(
    daemon: ServedDaemon, run: Run, capsys: Output, monkeypatch: pytest.MonkeyPatch
):
    """A proxy that allows no stream is no reason to try for ever."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(daemon.stream, "listen", lambda *_args, **_more: contextlib.nullcontext(_Ended()))
    assert run("update", "web", "--wait") == 3
    assert "again and again" in capsys.readouterr().err


class _Ended:
    async def next(self, _seconds: float) -> bytes:
        return b""


def test_a_connection_that_breaks_is_taken_up_again(
    daemon: ServedDaemon, run: Run, capsys: Output, monkeypatch: pytest.MonkeyPatch
):
    """A connection that is cut in the middle of an event loses none."""
    daemon.tells = [("rollout.started", OURS), ("rollout.succeeded", OURS)]
    cuts = iter([True])
    read = http.client.HTTPResponse.readline

    def cut_once(self: http.client.HTTPResponse, limit: int) -> bytes:
        line = read(self, limit)
        if line.startswith(b"data") and next(cuts, False):
            raise ConnectionResetError(104, "Connection reset by peer")
        return line

    monkeypatch.setattr(http.client.HTTPResponse, "readline", cut_once)
    assert run("update", "web", "--wait") == 0
    output = capsys.readouterr()
    assert "Connection reset by peer" in output.err
    assert [json.loads(line)["event"] for line in output.out.splitlines()] == ["rollout.started", "rollout.succeeded"]


def test_a_daemon_elsewhere_is_reached_with_the_token(daemon: ServedDaemon, run: Run, capsys: Output):
    """--server and SIDECAR_SERVER name a daemon elsewhere."""
    server = f"http://127.0.0.1:{daemon.port}"
    assert run("targets", "--server", server, SIDECAR_ADMIN_TOKEN=ADMIN_TOKEN) == 0
    assert run("targets", SIDECAR_SERVER=server, SIDECAR_ADMIN_TOKEN=ADMIN_TOKEN) == 0
    assert "docker:web" in capsys.readouterr().out


def test_the_kept_token_is_used_here(daemon: ServedDaemon, run: Run, tmp_path: Path):
    """Where the state folder is at hand its token is, too."""
    (tmp_path / "admin-token").write_text(ADMIN_TOKEN)
    assert run("targets", "--server", f"http://127.0.0.1:{daemon.port}") == 0


@pytest.mark.parametrize(
    "server, token, status, text",
    [
        ("http://127.0.0.1:{port}", None, 2, "set SIDECAR_ADMIN_TOKEN"),
        ("http://127.0.0.1:{port}", "another-token-than-it-has", 2, "this is not the admin token"),
        ("http://127.0.0.1:{port}/elsewhere", ADMIN_TOKEN, 3, "there is no Sidecar API"),
        ("127.0.0.1", ADMIN_TOKEN, 2, "is no address"),
        ("http://127.0.0.1:x", ADMIN_TOKEN, 2, "is no address"),
        ("http://127.0.0.1:1", ADMIN_TOKEN, 3, "Connection refused"),
        ("https://127.0.0.1:1", ADMIN_TOKEN, 3, "Connection refused"),
    ],
)
def test_a_daemon_that_is_not_reached_says_why(
    daemon: ServedDaemon, run: Run, capsys: Output, server: str, token: str | None, status: int, text: str
):
    """A wrong address or token is configuration (2), silence is 3."""
    environ = {"SIDECAR_ADMIN_TOKEN": token} if token else {}
    assert run("targets", "--server", server.format(port=daemon.port), **environ) == status
    error = capsys.readouterr().err
    assert text in error
    assert "another-token" not in error


def test_an_engine_that_is_gone_is_unreachable(daemon: ServedDaemon, run: Run, capsys: Output):
    """The daemon answers that its engine does not: that is exit status 3 as well."""
    daemon.fails = Transient("the engine does not answer")
    assert run("targets") == 3
    assert "the engine does not answer" in capsys.readouterr().err


def test_what_the_api_does_not_take_is_wrong_usage(daemon: ServedDaemon, run: Run, capsys: Output):
    """A reference that is far too long is told so by the API, which is exit status 2."""
    assert run("update", "x" * 600) == 2
    assert "at most 500 characters" in capsys.readouterr().err


def test_a_socket_of_another_user_says_so(run: Run, capsys: Output, monkeypatch: pytest.MonkeyPatch):
    """Who may not open the socket is told to run it as the daemon's user."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(http.client.HTTPConnection, "request", refuse)
    assert run("targets") == 3
    assert "run this as the user that it runs as" in capsys.readouterr().err


def test_a_defect_of_the_daemon_is_a_failure(daemon: ServedDaemon, run: Run):
    """A daemon that answers 500 failed what was asked for."""
    daemon.fails = RuntimeError()
    with capture_logs() as logs:
        assert run("targets") == 1
    assert [entry["event"] for entry in logs] == ["request.failed"]


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{]"])
def test_something_else_behind_the_socket_is_no_daemon(run: Run, tmp_path: Path, answer: bytes):
    """What speaks no HTTP, or no JSON, is no daemon."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control.sock"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert run("targets") == 3
        thread.join()


@pytest.mark.parametrize("argv", [["update"], ["history", "--limit", "0"], ["history", "--limit", "x"], ["nope"], []])
def test_wrong_usage_is_status_2(run: Run, argv: list[str]):
    """What cannot be understood is exit status 2."""
    with pytest.raises(SystemExit) as caught:
        run(*argv)
    assert caught.value.code == 2


def test_who_reads_no_further_is_no_failure(
    daemon: ServedDaemon, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """`sidecar history | head -1` ends without a traceback."""

    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

        def fileno(self) -> int:
            return own.fileno()

    with (tmp_path / "own").open("w") as own:
        monkeypatch.setattr(sys, "stdout", Closed())
        assert run("history") == 0


def test_what_a_helper_takes_over_is_done_for_whoever_waits():
    """The daemon that would tell is about to be stopped; the words say where to look."""
    followed = Followed("delivery-2", ["docker:web"])
    reason = "web is updated by its helper web.sidecar-helper, which is about to stop it; see `sidecar history`"
    followed.feed(Event("1", "target.held", {**OURS, "reason": reason}))
    assert followed.is_well
    followed = Followed("delivery-2", ["docker:web"])
    followed.feed(Event("1", "target.held", {**OURS, "reason": "the helper of its image ended 5 times"}))
    assert not followed.waiting
    assert not followed.is_well


def test_a_target_that_waits_for_others_is_not_done():
    """A replica that waits for another, or for its dependency, is looked at again; its hold is not the end."""
    held = Hold("stays stopped")
    busy = Member(target=TARGET, verdict=ROLLOUT, is_open=True)
    waiting = Member(target=TARGET, verdict=ROLLOUT)
    (reason,) = {hold.reason for hold in order([busy, waiting]).values()}
    followed = Followed("delivery-2", ["docker:web"])
    assert followed.feed(Event("", "target.held", OURS | {"reason": reason}))
    assert followed.waiting
    assert followed.feed(Event("", "target.held", OURS | {"reason": held.reason}))
    assert not followed.waiting
    assert not followed.is_well


def test_the_first_end_counts():
    """What a later pass finds is another update's."""
    followed = Followed("delivery-2", ["docker:web"])
    followed.feed(Event("", "rollout.rolled_back", OURS | {"reason": "x", "digest": NEW}))
    followed.feed(Event("", "target.kept", OURS))
    assert not followed.is_well
