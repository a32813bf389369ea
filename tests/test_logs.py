"""Logging: what a line looks like, what never stands in one, and that the code keeps to the table of events."""

import ast
import io
import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

from sidecar.core.image import ImageRef
from sidecar.core.rollout import Phase
from sidecar.log_events import EVENTS, KEYS
from sidecar.logs import LONGEST_TEXT, MASK, FactLog, Redaction, configure_logs, get_logger
from sidecar.web.events import FLEETING

SIDECAR = Path(__file__).parents[1] / "sidecar"
SECRET = "correct horse/battery+staple"


class Lines(io.BytesIO):
    """A stream, read as lines of JSON."""

    def json(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def one(self) -> dict[str, object]:
        (line,) = self.json()
        return line


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave logging of the process as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def lines() -> Lines:
    return Lines()


def test_a_line_is_one_fact(lines: Lines):
    """A line is JSON: the time in UTC, the level, the event, and the facts as keys."""
    configure_logs(stream=lines)
    get_logger().info("rollout.succeeded", target="docker:web", duration_seconds=1.5, phase=Phase.SUCCEEDED)
    line = lines.one()
    assert list(line) == ["timestamp", "level", "event", "target", "duration_seconds", "phase"]
    time = line.pop("timestamp")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", str(time))
    assert abs((datetime.now(UTC) - datetime.fromisoformat(str(time))).total_seconds()) < 5
    assert line == {
        "level": "info",
        "event": "rollout.succeeded",
        "target": "docker:web",
        "duration_seconds": 1.5,
        "phase": "succeeded",
    }


@pytest.mark.parametrize("nothing", [None, "", [], (), {}, frozenset(), b""])
def test_what_is_not_there_is_left_out(lines: Lines, nothing: object):
    """A line has no key that is null or empty, whoever writes it, and nor has the stream; nought and no are facts."""
    heard = _Heard()
    facts = FactLog(configure_logs(stream=lines), heard)
    facts.publish("target.held", target="docker:web", retry_at=nothing, reason=nothing, status=0, ok=False)
    get_logger().info("target.held", target="docker:web", retry_at=nothing, reason=nothing, status=0, ok=False)
    for line in lines.json():
        assert list(line) == ["timestamp", "level", "event", "target", "status", "ok"]
    assert heard.facts == [("target.held", {"target": "docker:web", "status": 0, "ok": False})]


def test_less_severe_lines_are_left_out(lines: Lines):
    """Below the level nothing is written."""
    configure_logs(stream=lines, level="warning")
    get_logger().info("target.kept")
    get_logger().warning("target.held")
    assert [line["event"] for line in lines.json()] == ["target.held"]


def test_what_the_context_knows_is_in_every_line(lines: Lines):
    """Keys bound for a request or a pass are in all of its lines."""
    configure_logs(stream=lines)
    with structlog.contextvars.bound_contextvars(delivery_id="d1"):
        get_logger().info("delivery.accepted")
    assert lines.one()["delivery_id"] == "d1"


@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        f"Authorization: Bearer {SECRET}",
        {"deep": [{"list": (f"x{SECRET}x",)}]},
        {SECRET: "as a key"},
        "https://host/hooks/dockerhub/correct%20horse%2Fbattery%2Bstaple",
        ValueError(f"bad {SECRET}"),
        f"body {SECRET}".encode(),
        "x" * (LONGEST_TEXT - 5) + SECRET,
        Path(f"/run/{SECRET}"),
        frozenset({SECRET}),
    ],
)
def test_no_secret_reaches_a_line(lines: Lines, value: object):
    """A known secret is hidden wherever it stands, also where a value is cut in its middle."""
    configure_logs(stream=lines, secrets=[SECRET], level="debug")
    get_logger().info("library.logged", message=value)
    text = lines.getvalue().decode()
    assert MASK in text
    assert not [part for part in ("correct", "horse", "battery") if part in text]


def test_a_secret_in_a_traceback_or_an_event_is_hidden(lines: Lines):
    """Neither the text of a failure nor the event's name tells a secret."""
    configure_logs(stream=lines, secrets=[SECRET], level="debug")
    try:
        json.loads(SECRET.join("{}"))
    except ValueError as error:
        error.args = (SECRET,)
        get_logger().exception(f"failed with {SECRET}")
    line = lines.one()
    assert line["event"] == f"failed with {MASK}"
    assert line["error"] == f"JSONDecodeError: {MASK}"
    assert "Traceback" in str(line["traceback"])
    assert "horse" not in str(line["traceback"]).replace("test_logs.py", "")


def test_a_secret_learned_later_is_hidden_from_then_on(lines: Lines):
    """What a registry hands out while we run is as secret as what was configured; the longest is hidden whole."""
    redaction = configure_logs(stream=lines, secrets=["abcd"])
    redaction.add("abcdefgh", "", "x")
    get_logger().info("library.logged", message="abcdefgh x abcd")
    assert lines.one()["message"] == f"{MASK} x {MASK}"


@pytest.mark.parametrize(
    "key, is_hidden",
    [
        ("password", True),
        ("registry_password", True),
        ("token", True),
        ("tokens", True),
        ("Authorization", True),
        ("client_secret", True),
        ("set_cookie", True),
        ("credentials", True),
        ("tokenizer", False),
        ("secretary", False),
        ("target", False),
    ],
)
def test_a_key_that_names_a_secret_is_masked(lines: Lines, key: str, is_hidden: bool):
    """A value under a telling name is hidden though nobody said that it is one, inside others too."""
    configure_logs(stream=lines)
    get_logger().info("library.logged", **{key: "unknown", "more": {key: "unknown"}})
    expected = MASK if is_hidden else "unknown"
    assert lines.one()[key] == expected
    assert lines.one()["more"] == {key: expected}


class _Unspeakable:
    def __str__(self) -> str:
        msg = "no text"
        raise RuntimeError(msg)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        2**80,
        "\udcff",
        "line\nbreak\x1b[31m\x9b",
        b"\xff",
        {1: {2: {3: {4: {5: {6: 7}}}}}},
        [[[[[[[[1]]]]]]]],
        ImageRef.parse("me/app:1"),
        object(),
        _Unspeakable(),
        None,
    ],
)
@pytest.mark.parametrize("style", ["json", "logfmt", "console"])
def test_any_value_is_one_line(lines: Lines, style: str, value: object):
    """Whatever is logged is one line, without control characters, and the call does not raise."""
    configure_logs(stream=lines, style=style)
    get_logger().info("library.logged", message=value)
    text = lines.getvalue()
    assert text.count(b"\n") == 1
    assert b"\x1b" not in text
    assert b"\xc2\x9b" not in text


def test_a_defect_of_a_value_is_said(lines: Lines):
    """A value of which no text can be made leaves the rest of the line."""
    configure_logs(stream=lines)
    get_logger().info("target.kept", message=_Unspeakable())
    assert lines.one()["unwritable"] == "RuntimeError"


def test_values_are_bounded(lines: Lines):
    """No value makes a line of megabytes, be it long, wide or deep."""
    configure_logs(stream=lines)
    endless: list[object] = []
    endless.append(endless)
    get_logger().info("library.logged", long="x" * 10**6, wide=list(range(10**5)), deep=endless, bytes=b"x" * 10**6)
    assert len(lines.getvalue()) < 4 * LONGEST_TEXT
    assert "1000000 characters" in str(lines.one()["long"])


def test_an_error_is_one_key(lines: Lines):
    """An exception is its type and its text; how it came about is only for debugging."""
    configure_logs(stream=lines)
    get_logger().warning("target.held", error=OSError("disk full"))
    get_logger().warning("target.held", exc_info=OSError("disk full"))
    for line in lines.json():
        assert line["error"] == "OSError: disk full"
        assert "traceback" not in line


def test_logfmt_is_key_value(lines: Lines):
    """Logfmt quotes what needs it and nothing else."""
    configure_logs(stream=lines, style="logfmt")
    get_logger().info("target.kept", target="docker:web", reason='is "up" to date', n=1, ok=True, ids=["a", "b"])
    text = lines.getvalue().decode().partition(" ")[2]
    assert text == ('level=info event=target.kept target=docker:web reason="is \\"up\\" to date" n=1 ok=true ids=a,b\n')


class _Terminal(Lines):
    def isatty(self) -> bool:
        return True


def test_the_form_fits_where_it_goes():
    """On a terminal lines are for people, elsewhere for programs, unless told."""
    terminal, pipe = _Terminal(), Lines()
    for stream in (terminal, pipe):
        configure_logs(stream=stream)
        get_logger().info("target.kept")
    assert not terminal.getvalue().startswith(b"{")
    assert pipe.getvalue().startswith(b"{")


def test_libraries_write_the_same_lines(lines: Lines):
    """What a library logs by the standard library is a line like ours; its chatter is left out."""
    configure_logs(stream=lines, secrets=[SECRET])
    configure_logs(stream=lines, secrets=[SECRET])
    logging.getLogger("urllib3").warning("retrying %s", SECRET)
    logging.getLogger("urllib3").info("chatter")
    logging.getLogger("asyncio").error("failed", exc_info=(ValueError, ValueError("x"), None))
    first, second = lines.json()
    assert (first["event"], first["level"], first["logger"]) == ("library.logged", "warning", "urllib3")
    assert first["message"] == f"retrying {MASK}"
    assert second["error"] == "ValueError: x"


def test_a_library_that_logs_badly_does_no_harm(lines: Lines):
    """A message that does not fit its arguments is no reason to fail."""
    logging.getLogger().handlers.clear()
    configure_logs(stream=lines)
    logging.getLogger("urllib3").warning("%d", "x")
    assert not lines.getvalue()


def test_there_is_no_access_log(lines: Lines):
    """Paths hold the tokens of senders; requests are told by our own events."""
    configure_logs(stream=lines, level="debug")
    logging.getLogger("aiohttp.access").error("GET /hooks/dockerhub/token")
    assert not lines.getvalue()


def test_a_stream_that_is_gone_loses_only_lines(lines: Lines):
    """A closed pipe does not stop what logs into it."""
    configure_logs(stream=lines)
    lines.close()
    get_logger().info("target.kept")


class _Heard:
    def __init__(self) -> None:
        self.facts: list[tuple[str, dict[str, object]]] = []

    def publish(self, event: str, /, **facts: object) -> None:
        self.facts.append((event, facts))


def test_a_fact_is_logged_and_heard(lines: Lines):
    """One call writes the line at its level and tells whoever listens, without the secret in both."""
    heard = _Heard()
    facts = FactLog(configure_logs(stream=lines, secrets=[SECRET]), heard)
    facts.publish("rollout.failed", target="docker:web", reason=f"exec {SECRET}")
    line = lines.one()
    assert (line["event"], line["level"], line["reason"]) == ("rollout.failed", "error", f"exec {MASK}")
    assert heard.facts == [("rollout.failed", {"target": "docker:web", "reason": f"exec {MASK}"})]


def test_progress_is_heard_and_not_logged(lines: Lines):
    """Ten lines a second tell a log nothing."""
    heard = _Heard()
    FactLog(configure_logs(stream=lines, level="debug"), heard).publish("pull.progressed", current_bytes=1)
    assert not lines.getvalue()
    assert heard.facts == [("pull.progressed", {"current_bytes": 1})]


def test_telling_a_fact_never_fails(lines: Lines):
    """A fact with keys of ours, or of which no text can be made, fails nobody."""
    facts = FactLog(configure_logs(stream=lines))
    facts.publish("target.kept", event="x", method="y", self="z")
    facts.publish("target.kept", message=_Unspeakable())
    facts.publish("unheard.of", target="docker:web")
    assert lines.json()[-1]["event"] == "unheard.of"


def _calls() -> Iterator[tuple[str, ast.Call, ast.Attribute]]:
    for path in sorted(SIDECAR.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                yield f"{path.relative_to(SIDECAR)}:{node.lineno}", node, node.func


def _told() -> Iterator[tuple[str, str, set[str]]]:
    """Give every event that the code names: by a log call, or by publishing it."""
    levels = {"debug", "info", "warning", "error", "exception", "critical"}
    for place, call, function in _calls():
        is_log = function.attr in levels and ast.unparse(function.value) in {"log", "self._log"}
        if not is_log and function.attr not in {"publish", "_publish"}:
            continue
        event = call.args[0]
        for name in (event.body, event.orelse) if isinstance(event, ast.IfExp) else (event,):
            if isinstance(name, ast.Constant):
                yield place, str(name.value), {word.arg for word in call.keywords if word.arg} - {"exc_info"}


@pytest.mark.timeout(20)  # it parses the whole package
def test_the_code_keeps_to_the_table_of_events():
    """Every event that is told stands in the table with every key, as alerts are built on it."""
    strange = [
        f"{place} {event} {sorted(keys - EVENTS[event].keys) if event in EVENTS else ''}"
        for place, event, keys in _told()
        if event not in EVENTS or not keys <= EVENTS[event].keys
    ]
    assert not strange


def test_what_is_only_streamed_is_not_kept():
    """The event stream keeps what the log keeps: progress is told to those who listen now."""
    assert {name for name, event in EVENTS.items() if event.level is None} == FLEETING


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_is_an_event(phase: Phase):
    """A rollout that enters a phase says so under a name of the table."""
    assert f"rollout.{phase}" in EVENTS


@pytest.mark.parametrize("name", EVENTS)
def test_every_key_is_explained(name: str):
    """A key means the same in every event, and what it means stands beside the table; nothing else stands there."""
    assert EVENTS[name].keys <= KEYS.keys()
    assert set(KEYS) == {key for event in EVENTS.values() for key in event.keys}
    assert all(meaning.endswith(".") for meaning in KEYS.values())


@pytest.mark.parametrize("name", EVENTS)
def test_names_of_events_are_dotted_and_past(name: str):
    """An event is a fact: a noun, a dot, and what happened to it."""
    assert re.fullmatch(r"[a-z]+\.[a-z_]+", name)
    assert EVENTS[name].meaning.endswith(".")


def test_redaction_without_secrets_changes_nothing():
    """Where nothing is secret everything is as it was."""
    assert Redaction().facts({"target": "docker:web", "n": [1, 2.5, None]}) == {
        "target": "docker:web",
        "n": [1, 2.5, None],
    }
