"""Commands that need no daemon: check, token, url, healthcheck."""

import json
import re
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import sidecar
from sidecar import cli, control
from sidecar.cli import health, main
from sidecar.errors import Refused, Unreachable
from tests.cli.served_daemon import ServedDaemon, served

Run = Callable[..., int]
Output = pytest.CaptureFixture[str]
TOKEN = "0123456789abcdef"
ROOT = Path(sidecar.__file__).parents[1]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(*argv: str, **environ: str) -> int:
        return main(argv, {"SIDECAR_STATE_DIR": str(tmp_path / "state"), **environ}, tmp_path)

    return run


def test_check_prints_what_counts_and_where_from(run: Run, tmp_path: Path, capsys: Output):
    """Every setting is printed with its value and its place; secrets are not, and nothing is made."""
    (tmp_path / ".env").write_text("SIDECAR_TITLE=Mine\n")
    environ = {
        "SIDECAR_TOKEN": TOKEN,
        "SIDECAR_SOURCES__GENERIC__TOKEN": f"{TOKEN}2",
        "SIDECAR_ALLOWED_PUSHERS": "a,b",
    } | {"SIDECAR_DEBOUNCE_SECONDS": "2.50"}
    assert run("check", **environ) == 0
    text = capsys.readouterr().out
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in text.splitlines()}
    assert lines["SIDECAR_TITLE"].split() == ["Mine", ".env"]
    assert lines["SIDECAR_PORT"].split() == ["8080", "default"]
    assert lines["SIDECAR_TOKEN"].split() == ["***", "environment"]
    assert lines["SIDECAR_SOURCES__GENERIC__TOKEN"].split() == ["***", "environment"]
    assert lines["SIDECAR_ALLOWED_PUSHERS"].split() == ["a,", "b", "environment"]
    assert lines["SIDECAR_DEBOUNCE_SECONDS"].split() == ["2.5", "environment"]
    assert lines["SIDECAR_ADMIN_TOKEN"].startswith("made once, kept in")
    assert lines["SIDECAR_ENV"].split() == ["-", "default"]
    assert lines["SIDECAR_LOG_FORMAT"].startswith("console on a terminal, json elsewhere")
    assert TOKEN not in text
    assert not (tmp_path / "state").exists()


def test_check_names_no_token_where_a_header_is_expected(run: Run, capsys: Output):
    """A source with an `Authorization` of its own takes no token."""
    assert run("check", SIDECAR_SOURCES__DISTRIBUTION__AUTHORIZATION=f"Bearer {TOKEN}") == 0
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert lines["SIDECAR_SOURCES__DISTRIBUTION__TOKEN"] == ["-", "default"]
    assert lines["SIDECAR_SOURCES__DISTRIBUTION__AUTHORIZATION"] == ["***", "environment"]


def test_check_says_which_token_counts_where_a_source_has_none(run: Run, capsys: Output):
    """A source without a credential of its own is not open to all: it takes the token of all sources."""
    assert run("check") == 0
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert lines["SIDECAR_SOURCES__DOCKERHUB__TOKEN"] == ["that", "of", "SIDECAR_TOKEN", "default"]


def test_check_prints_json(run: Run, capsys: Output):
    """A program gets the same."""
    assert run("check", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"key": "SIDECAR_RESYNC_SECONDS", "value": "21600", "origin": "default"} in rows


def test_check_warns_of_what_watchtower_did_and_we_do_not(run: Run, capsys: Output):
    """Beside the table, or as rows with a warning; what is honoured stands in the table with its variable."""
    environ = {
        "SIDECAR_WATCHTOWER_COMPAT": "true",
        "WATCHTOWER_CLEANUP": "true",
        "WATCHTOWER_NOTIFICATION_URL": "discord://a-secret@channel",
        "WATCHTOWER_HTTP_API_TOKEN": TOKEN,
    }
    assert run("check", **environ) == run("check", "--json", **environ) == 0
    output = capsys.readouterr()
    table, _, as_json = output.out.partition("[")
    lines = {line.split()[0]: line.split()[1:] for line in table.splitlines()}
    assert lines["SIDECAR_PRUNE"] == ["replaced", "WATCHTOWER_CLEANUP"]
    assert lines["SIDECAR_DEFAULT_ENABLE"] == ["true", "SIDECAR_WATCHTOWER_COMPAT"]
    assert lines["SIDECAR_WATCHTOWER_HTTP_API_TOKEN"] == ["***", "WATCHTOWER_HTTP_API_TOKEN"]
    assert output.err.startswith("warning: WATCHTOWER_NOTIFICATION_URL: nothing is sent yet")
    (warned,) = [row for row in json.loads("[" + as_json) if "warning" in row]
    assert warned["key"] == "WATCHTOWER_NOTIFICATION_URL"
    assert "a-secret" not in output.out + output.err


def test_check_says_which_switch_reads_watchtowers_variables(run: Run, capsys: Output):
    """Whoever moves over and forgets it is told."""
    assert run("check", WATCHTOWER_CLEANUP="true") == 0
    assert capsys.readouterr().err == (
        "warning: WATCHTOWER_CLEANUP: not read; SIDECAR_WATCHTOWER_COMPAT=true honours Watchtower's names\n"
    )


@pytest.mark.parametrize("command", [["check"], ["run"], ["token"], ["doctor"], ["targets"], ["url", "generic"]])
def test_a_wrong_setting_is_status_2(run: Run, capsys: Output, command: list[str]):
    """Every command says all that is wrong with the settings, one line each."""
    assert run(*command, SIDECAR_POTR="1", SIDECAR_PRUNE="all") == 2
    assert capsys.readouterr().err.splitlines() == [
        "sidecar: SIDECAR_POTR is not known; did you mean SIDECAR_PORT?",
        "sidecar: SIDECAR_PRUNE='all': should be 'none', 'replaced', 'dangling' or 'system'",
    ]


def test_the_token_is_made_once(run: Run, tmp_path: Path, capsys: Output):
    """The token is printed, kept for its owner, and the same the next time."""
    assert run("token") == run("token") == run("token", "--admin") == 0
    first, second, admin = capsys.readouterr().out.split()
    assert first == second != admin
    assert stat.S_IMODE((tmp_path / "state" / "token").stat().st_mode) == 0o600


def test_a_token_can_be_rotated(run: Run, capsys: Output):
    """A rotated token is another, and what has to follow is said beside it."""
    assert run("token") == run("token", "--rotate") == run("token") == 0
    output = capsys.readouterr()
    first, second, third = output.out.split()
    assert first != second == third
    assert "Restart the daemon" in output.err


def test_a_token_that_is_set_is_changed_where_it_is_set(run: Run, capsys: Output):
    """A token out of the settings is printed, and not rotated behind their back."""
    assert run("token", SIDECAR_TOKEN=TOKEN) == 0
    assert run("token", "--rotate", SIDECAR_TOKEN=TOKEN) == 2
    output = capsys.readouterr()
    assert output.out == f"{TOKEN}\n"
    assert "SIDECAR_TOKEN is set (environment)" in output.err


@pytest.mark.parametrize(
    "environ, argv, address",
    [
        ({}, ["dockerhub", "--base", "https://x.example/"], f"https://x.example/hooks/dockerhub/{TOKEN}"),
        ({"SIDECAR_PUBLIC_URL": "https://y.example"}, ["generic"], f"https://y.example/hooks/generic/{TOKEN}"),
        (
            {"SIDECAR_ROOT_PATH": "sidecar"},
            ["distribution", "--base", "http://x"],
            f"http://x/sidecar/hooks/distribution/{TOKEN}",
        ),
        (
            {"SIDECAR_SOURCES__MINE__KIND": "dockerhub", "SIDECAR_SOURCES__MINE__TOKEN": f"{TOKEN}.own"},
            ["mine", "--base", "http://x"],
            f"http://x/hooks/mine/{TOKEN}.own",
        ),
        (
            {"SIDECAR_SOURCES__DISTRIBUTION__AUTHORIZATION": f"Bearer {TOKEN}"},
            ["distribution", "--base", "http://x"],
            "http://x/hooks/distribution",
        ),
    ],
)
def test_the_address_to_paste_is_whole(
    run: Run, capsys: Output, environ: dict[str, str], argv: list[str], address: str
):
    """The address stands alone on standard output; what to do with it stands beside that."""
    assert run("url", *argv, SIDECAR_TOKEN=TOKEN, **environ) == 0
    output = capsys.readouterr()
    assert output.out == f"{address}\n"
    assert "sidecar history" in output.err


@pytest.mark.parametrize("authorization", [{}, {"SIDECAR_SOURCES__DISTRIBUTION__AUTHORIZATION": f"Bearer {TOKEN}"}])
def test_a_registry_is_told_what_the_example_tells_its_own(run: Run, capsys: Output, authorization: dict[str, str]):
    """What is printed to be pasted is what `compose.example.yml` carries, but for the address and a header."""
    assert run("url", "distribution", "--base", "https://x.example", SIDECAR_TOKEN=TOKEN, **authorization) == 0
    output = capsys.readouterr()
    pasted = textwrap.dedent(re.search(r"^ +notifications:\n(?: +.*\n)+", output.err, re.MULTILINE)[0])
    (printed,) = yaml.safe_load(pasted)["notifications"]["endpoints"]
    example = yaml.safe_load((ROOT / "compose.example.yml").read_text())["services"]["registry"]["environment"]
    (carried,) = yaml.safe_load(example["REGISTRY_NOTIFICATIONS_ENDPOINTS"])
    assert printed.pop("url") == output.out.strip()
    assert carried.pop("url") == "http://host.docker.internal:8080/hooks/distribution/${SIDECAR_TOKEN}"
    assert printed.pop("headers", None) == ({"Authorization": ["<what you set>"]} if authorization else None)
    assert printed == carried
    assert printed["ignore"] == {"mediatypes": ["application/octet-stream"], "actions": ["pull", "mount", "delete"]}


def test_an_address_nobody_can_know_says_what_is_missing(run: Run, capsys: Output):
    """Where senders reach us is only known to the user."""
    assert run("url", "dockerhub") == 2
    assert "--base" in capsys.readouterr().err


def test_an_unknown_source_is_told_the_known_ones(run: Run, capsys: Output):
    """The message lists the sources that there are."""
    assert run("url", "harbor", "--base", "http://x") == 2
    assert "'harbor' is no source; accepted are dockerhub, distribution, generic" in capsys.readouterr().err


@pytest.fixture
def daemon(tmp_path: Path):
    (tmp_path / "state").mkdir()
    with served(tmp_path / "state") as daemon:
        yield daemon


@pytest.mark.parametrize("host", ["", "0.0.0.0", "127.0.0.1"])
def test_a_daemon_that_lives_is_healthy(daemon: ServedDaemon, run: Run, host: str):
    """The health check asks the port that the settings name, on this machine."""
    assert run("healthcheck", SIDECAR_PORT=str(daemon.port), SIDECAR_HOST=host) == 0


def test_a_daemon_without_its_engine_lives_and_is_not_ready(daemon: ServedDaemon, run: Run, capsys: Output):
    """Starting it anew would not bring the engine back."""
    daemon.unwell = {"engine": "does not answer"}
    assert run("healthcheck", SIDECAR_PORT=str(daemon.port)) == 0
    assert run("healthcheck", "--ready", SIDECAR_PORT=str(daemon.port)) == 1
    assert "does not answer" in capsys.readouterr().out


def test_whoever_asks_has_more_patience_than_whom_it_asks():
    """A part that hangs is named by the daemon before the health check gives up, and that before Docker does."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    docker_gives_up = float(re.search(r"HEALTHCHECK .*--timeout=(\d+)s", dockerfile)[1])
    assert control.PATIENCE_SECONDS < health.PATIENCE_SECONDS < docker_gives_up


@pytest.mark.parametrize("port, status", [("1", 3), ("eighty", 2)])
def test_no_daemon_is_not_healthy(run: Run, port: str, status: int):
    """Nobody at the port is status 3, and a port that is none a wrong setting."""
    assert run("healthcheck", SIDECAR_PORT=port) == status


@pytest.mark.timeout(20)  # it starts Python
def test_the_health_check_imports_nothing_slow():
    """It runs every ten seconds for ever, so it loads neither models nor a server nor an event loop."""
    program = (
        "import sys; from sidecar.cli import main; main(['healthcheck'], {'SIDECAR_PORT': '1'});"
        "print(*sorted({'pydantic', 'aiohttp', 'asyncio', 'structlog', 'docker', 'rich', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""


@pytest.mark.timeout(20)  # it starts Python
def test_the_module_is_the_program():
    """`python -m sidecar` is `sidecar`, and ends with its status."""
    done = subprocess.run([sys.executable, "-m", "sidecar", "--version"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"sidecar {sidecar.__version__}\n")


def test_the_version_is_printed(run: Run, capsys: Output):
    """The version is that of the installed package."""
    with pytest.raises(SystemExit) as caught:
        run("--version")
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"sidecar {sidecar.__version__}\n"


def test_a_package_has_no_other_attribute():
    """Only the version is found out late."""
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        sidecar.nope  # noqa: B018


@pytest.mark.parametrize("error, status", [(Unreachable("engine"), 3), (Refused("no"), 1), (KeyboardInterrupt(), 130)])
def test_how_the_daemon_ends_is_the_status(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int
):
    """An engine that is out of reach at the start is status 3."""

    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(cli, "_run_daemon", fail)
    assert run("run") == status
