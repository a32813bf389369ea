"""Watchtower's variables as settings of ours: which are honoured, which count, and what is said of the rest."""

from pathlib import Path
from typing import Any

import pytest

from sidecar import watchtower_environment
from sidecar.core.watchtower import Rules
from sidecar.core.watchtower_names import ENVIRONMENT, Fate
from sidecar.errors import Misconfigured
from sidecar.settings_model import Loaded, Settings, load

COMPAT = {"SIDECAR_WATCHTOWER_COMPAT": "true"}


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, on a machine where nothing is mounted at Watchtower's place for credentials."""
    monkeypatch.setattr(watchtower_environment, "CREDENTIALS", tmp_path / "none.json")
    return tmp_path


def loaded(cwd: Path, **environ: str) -> Loaded:
    return load({"HOME": str(cwd), **COMPAT, **environ}, cwd)


def settings(cwd: Path, **environ: str) -> Settings:
    return loaded(cwd, **environ).settings


@pytest.mark.parametrize(
    "environ, expected",
    [
        ({}, {"default_enable": True, "resync_seconds": 21600, "prune": "replaced"}),
        ({"WATCHTOWER_LABEL_ENABLE": "true"}, {"default_enable": False}),
        ({"WATCHTOWER_LABEL_ENABLE": "yes"}, {"default_enable": True}),
        ({"WATCHTOWER_CLEANUP": "true"}, {"prune": "replaced"}),
        ({"WATCHTOWER_CLEANUP": "false"}, {"prune": "none"}),
        (
            {"WATCHTOWER_DISABLE_CONTAINERS": "db, /cache mail"},
            {"watchtower_disable_containers": ("db", "cache", "mail")},
        ),
        ({"WATCHTOWER_SCOPE": "prod"}, {"scope": "prod"}),
        ({"WATCHTOWER_POLL_INTERVAL": "300"}, {"resync_seconds": 300}),
        ({"WATCHTOWER_HTTP_API_UPDATE": "true"}, {"watchtower_http_api_update": True, "resync_seconds": 0}),
        (
            {"WATCHTOWER_HTTP_API_UPDATE": "true", "WATCHTOWER_POLL_INTERVAL": "300"},
            {"resync_seconds": 0},
        ),
        (
            {
                "WATCHTOWER_HTTP_API_UPDATE": "true",
                "WATCHTOWER_HTTP_API_PERIODIC_POLLS": "true",
                "WATCHTOWER_POLL_INTERVAL": "300",
            },
            {"resync_seconds": 300},
        ),
        ({"WATCHTOWER_HTTP_API_METRICS": "1"}, {"watchtower_http_api_metrics": True, "resync_seconds": 21600}),
        ({"WATCHTOWER_DEBUG": "true", "WATCHTOWER_LOG_LEVEL": "error"}, {"log_level": "debug"}),
        ({"WATCHTOWER_TRACE": "true"}, {"log_level": "debug"}),
        ({"WATCHTOWER_LOG_LEVEL": "WARN"}, {"log_level": "warning"}),
        ({"WATCHTOWER_LOG_LEVEL": "panic"}, {"log_level": "error"}),
        ({"WATCHTOWER_LOG_FORMAT": "Auto"}, {"log_format": None}),
        ({"WATCHTOWER_LOG_FORMAT": "pretty"}, {"log_format": "console"}),
        ({"WATCHTOWER_LOG_FORMAT": "json"}, {"log_format": "json"}),
        ({"WATCHTOWER_LOG_FORMAT": "LogFmt"}, {"log_format": "logfmt"}),
        ({"REPO_USER": "me", "REPO_PASS": "secret"}, {"registry_username": "me"}),
        ({"REPO_USER": "me"}, {"registry_username": None}),
        ({"DOCKER_HOST": "tcp://engine:2375"}, {"docker_host": "tcp://engine:2375"}),
        ({"DOCKER_CONFIG": "/credentials"}, {"registry_credentials": Path("/credentials/config.json")}),
    ],
)
def test_what_watchtower_was_told_counts(cwd: Path, environ: dict[str, str], expected: dict[str, Any]) -> None:
    """Each variable that is honoured becomes the setting that means the same."""
    read = settings(cwd, **environ)
    assert {name: getattr(read, name) for name in expected} == expected


def test_what_is_asked_of_all_containers_becomes_rules(cwd: Path) -> None:
    """The labels are read by them."""
    environ = {
        "WATCHTOWER_SCOPE": "none",
        "WATCHTOWER_MONITOR_ONLY": "true",
        "WATCHTOWER_NO_PULL": "1",
        "WATCHTOWER_NO_RESTART": "t",
        "WATCHTOWER_LABEL_TAKE_PRECEDENCE": "true",
        "WATCHTOWER_LIFECYCLE_HOOKS": "true",
        "WATCHTOWER_INCLUDE_STOPPED": "true",
        "WATCHTOWER_DISABLE_CONTAINERS": "db",
    }
    assert settings(cwd, **environ).watchtower_rules == Rules(
        scope="none",
        monitor_only=True,
        no_pull=True,
        no_restart=True,
        label_take_precedence=True,
        lifecycle_hooks=True,
        include_stopped=True,
        disable_containers=frozenset({"db"}),
    )


def test_without_the_switch_nothing_of_it_is_read(cwd: Path) -> None:
    """A variable of another program changes nothing, and is named once, so that its owner finds the switch."""
    read = load({"WATCHTOWER_MONITOR_ONLY": "true", "WATCHTOWER_POLL_INTERVAL": "no", "REPO_USER": "me"}, cwd)
    assert (read.settings.watchtower_rules, read.settings.default_enable) == (None, False)
    (remark,) = read.remarks
    assert remark.name == "WATCHTOWER_MONITOR_ONLY, WATCHTOWER_POLL_INTERVAL"
    assert remark.says == "not read; SIDECAR_WATCHTOWER_COMPAT=true honours Watchtower's names"
    assert load({"REPO_USER": "me", "WATCHTOWER_PORT": "tcp://10.0.0.1:80"}, cwd).remarks == ()


@pytest.mark.parametrize(
    "ours, theirs, name, value",
    [
        ({"SIDECAR_PRUNE": "dangling"}, {"WATCHTOWER_CLEANUP": "false"}, "prune", "dangling"),
        ({"SIDECAR_DEFAULT_ENABLE": "false"}, {}, "default_enable", False),
        ({"SIDECAR_SCOPE": "a"}, {"WATCHTOWER_SCOPE": "b"}, "scope", "a"),
        ({"SIDECAR_RESYNC_SECONDS": "60"}, {"WATCHTOWER_HTTP_API_UPDATE": "true"}, "resync_seconds", 60),
        (
            {"SIDECAR_WATCHTOWER_MONITOR_ONLY": "false"},
            {"WATCHTOWER_MONITOR_ONLY": "true"},
            "watchtower_monitor_only",
            False,
        ),
    ],
)
def test_a_setting_of_ours_wins(
    cwd: Path, ours: dict[str, str], theirs: dict[str, str], name: str, value: object
) -> None:
    """Also one from a file: whoever writes it knows us."""
    assert getattr(settings(cwd, **ours, **theirs), name) == value
    lines = [f"{key.removeprefix('SIDECAR_').lower()}: {text}" for key, text in ours.items()]
    (cwd / "ours.yml").write_text("\n".join(lines))
    assert getattr(settings(cwd, SIDECAR_CONFIG="ours.yml", **theirs), name) == value


def test_variables_may_stand_in_dotenv(cwd: Path) -> None:
    """As ours may; the environment counts before it."""
    (cwd / ".env").write_text("WATCHTOWER_SCOPE=dotenv\nWATCHTOWER_CLEANUP=false\n")
    read = settings(cwd, WATCHTOWER_SCOPE="environment")
    assert (read.scope, read.prune) == ("environment", "none")


def test_an_empty_variable_counts_as_not_set(cwd: Path) -> None:
    """Compose passes an unset one on as an empty one."""
    read = loaded(cwd, **dict.fromkeys((name for name in ENVIRONMENT if not name.endswith("*")), ""))
    assert read.remarks == ()
    assert read.settings.scope is None


@pytest.mark.parametrize("text", ["mytoken", "mytoken\n", "a/path/that/is/none"])
def test_the_token_is_a_text_or_a_file(cwd: Path, text: str) -> None:
    """Watchtower takes either; a text that names no file is the token."""
    (cwd / "token").write_text(text)
    for value, token in ((str(cwd / "token"), text.strip()), (text.strip(), text.strip())):
        secret = settings(cwd, WATCHTOWER_HTTP_API_TOKEN=value).watchtower_http_api_token
        assert secret is not None
        assert secret.get_secret_value() == token


def test_a_token_file_that_cannot_be_read_is_no_file(cwd: Path) -> None:
    """Then the text itself is the token, as with Watchtower."""
    (cwd / "token").write_bytes(b"\xff\xfe")
    secret = settings(cwd, WATCHTOWER_HTTP_API_TOKEN=str(cwd / "token")).watchtower_http_api_token
    assert secret is not None
    assert secret.get_secret_value() == str(cwd / "token")


def test_the_token_is_hidden(cwd: Path) -> None:
    """It is a secret like ours."""
    assert "mytoken-1" in settings(cwd, WATCHTOWER_HTTP_API_TOKEN="mytoken-1").secret_values()


def test_credentials_are_found_where_watchtower_found_them(cwd: Path) -> None:
    """People mount theirs at /config.json; a folder that is named counts before, and without a file Docker's own."""
    assert settings(cwd).registry_credentials == cwd / ".docker" / "config.json"
    (cwd / "none.json").write_text("{}")
    assert settings(cwd).registry_credentials == cwd / "none.json"
    assert settings(cwd, DOCKER_CONFIG="/mine").registry_credentials == Path("/mine/config.json")


@pytest.mark.parametrize(
    "environ, line",
    [
        ({"WATCHTOWER_POLL_INTERVAL": "daily"}, "WATCHTOWER_POLL_INTERVAL='daily': is no number of seconds"),
        ({"WATCHTOWER_LOG_LEVEL": "loud"}, "WATCHTOWER_LOG_LEVEL='loud': should be 'debug'"),
        ({"WATCHTOWER_LOG_FORMAT": "xml"}, "WATCHTOWER_LOG_FORMAT='xml': should be 'json'"),
        ({"SIDECAR_WATCHTOWER_COMPAT": "maybe"}, "SIDECAR_WATCHTOWER_COMPAT='maybe': should be a valid boolean"),
    ],
)
def test_a_value_that_cannot_be_read_is_an_error(cwd: Path, environ: dict[str, str], line: str) -> None:
    """It is named as it was written."""
    with pytest.raises(Misconfigured) as caught:
        loaded(cwd, **environ)
    assert str(caught.value).startswith(line)
    assert len(str(caught.value).splitlines()) == 1


def test_settings_for_watchtower_need_the_switch(cwd: Path) -> None:
    """One of ours that would change nothing is an error."""
    with pytest.raises(Misconfigured) as caught:
        load({"SIDECAR_WATCHTOWER_MONITOR_ONLY": "true", "SIDECAR_WATCHTOWER_NO_PULL": "true"}, cwd)
    assert str(caught.value) == (
        "SIDECAR_WATCHTOWER_MONITOR_ONLY, SIDECAR_WATCHTOWER_NO_PULL: "
        "accepted together with SIDECAR_WATCHTOWER_COMPAT=true only"
    )
    load({"SIDECAR_WATCHTOWER_COMPAT": "false"}, cwd)


def test_everything_that_is_not_honoured_is_told(cwd: Path) -> None:
    """Nothing is ignored in silence: whatever the table does not call honoured has its line when it is set."""
    told = [name for name, known in ENVIRONMENT.items() if known.fate is not Fate.HONOURED]
    environ = {name.replace("*", "_URL"): "1" for name in told}
    assert sorted(remark.name for remark in loaded(cwd, **environ).remarks) == sorted(environ)


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_what_asks_for_nothing_is_not_told(cwd: Path, value: str) -> None:
    """`WATCHTOWER_REMOVE_VOLUMES=false` is what we do."""
    assert loaded(cwd, WATCHTOWER_REMOVE_VOLUMES=value, WATCHTOWER_RUN_ONCE=value).remarks == ()


@pytest.mark.parametrize(
    "environ, words",
    [
        ({"WATCHTOWER_CLEANUPS": "true"}, "WATCHTOWER_CLEANUPS: is not known; did you mean WATCHTOWER_CLEANUP?"),
        ({"WATCHTOWER_QQQQQQQQQQQQQQQQQQQQQQQQ": "1"}, "is not known and not read"),
        ({"WATCHTOWER_CLEANUP": "yes"}, "WATCHTOWER_CLEANUP: 'yes' is neither true nor false"),
        ({"WATCHTOWER_LABEL_ENABLE": "on"}, "WATCHTOWER_LABEL_ENABLE: 'on' is neither true nor false"),
        ({"REPO_USER": "me", "REPO_PASS": "x"}, "REPO_USER: counts for Docker Hub only"),
        ({"REPO_PASS": "x"}, "REPO_PASS: counts only together with REPO_USER"),
        (
            {"WATCHTOWER_HTTP_API_UPDATE": "true"},
            "WATCHTOWER_HTTP_API_UPDATE: without WATCHTOWER_HTTP_API_TOKEN only the admin token is accepted",
        ),
        ({"WATCHTOWER_HTTP_API_TOKEN": "mytoken"}, "WATCHTOWER_HTTP_API_TOKEN: is short enough to be guessed"),
        ({"WATCHTOWER_NOTIFICATION_URL": "discord://token@channel"}, "nothing is sent yet"),
        ({"WATCHTOWER_SCHEDULE": "0 0 4 * * *"}, "WATCHTOWER_SCHEDULE: there is no timetable"),
    ],
)
def test_what_is_done_otherwise_is_told(cwd: Path, environ: dict[str, str], words: str) -> None:
    """One line, with the reason and what to do instead; and no value that may be a secret."""
    (remark,) = loaded(cwd, **environ).remarks
    assert words in str(remark)
    assert "discord" not in str(remark)
    assert "mytoken" not in str(remark)
