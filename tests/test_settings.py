"""Settings: where they are read, which counts, what is accepted, and what somebody who gets one wrong is told."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.accepted import SOURCE_FIELDS, DistributionSource
from sidecar.errors import Misconfigured
from sidecar.settings import peek
from sidecar.settings_model import SECRETS, Settings, load, load_settings
from sidecar.sources import SOURCES
from sidecar.tokens import LENGTH

TOKEN = "0123456789abcdef"
OTHER = "fedcba9876543210"
HOW = "accepted is something like 21600, which is every six hours; 0 = never"
EXAMPLE = '{"ci": {"kind": "generic", "token": "..."}}'


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    return tmp_path


def problems(cwd: Path, **environ: str) -> list[str]:
    with pytest.raises(Misconfigured) as caught:
        load_settings(environ, cwd)
    return str(caught.value).splitlines()


def problem(cwd: Path, **environ: str) -> str:
    (only,) = problems(cwd, **environ)
    return only


def test_nothing_has_to_be_set(cwd: Path):
    """Without a single setting there is a default for everything."""
    settings = load_settings({"HOME": "/home/me"}, cwd)
    assert (settings.host, settings.port, settings.admin_port) == ("0.0.0.0", 8080, None)
    assert settings.state_dir == Path("/home/me/.local/state/sidecar")
    assert settings.registry_credentials == Path("/home/me/.docker/config.json")
    assert settings.docker_host == "unix:///var/run/docker.sock"
    assert (settings.resync_seconds, settings.debounce_seconds, settings.settle_seconds) == (21600, 2, 0)
    assert settings.stop_grace_seconds < 10
    assert settings.token is None
    assert not settings.dockerhub_callback
    assert not settings.docs


def test_every_kind_of_sender_is_a_default_source(cwd: Path):
    """Without SOURCES every kind that can be read may send, under its own name, with TOKEN."""
    sources = load_settings({}, cwd).sources
    assert {name: source.kind for name, source in sources.items()} == {kind: kind for kind in SOURCES}
    assert not any(source.tokens for source in sources.values())
    assert set(SOURCE_FIELDS) == set(SOURCES)


def test_every_setting_says_what_it_is():
    """A setting has its unit, its default and its reason beside it, where the documentation takes them from."""
    assert not [name for name, field in Settings.model_fields.items() if not field.description]


def test_the_environment_counts_first(cwd: Path):
    """The environment counts before `.env`, that before the YAML file, and that before the default."""
    (cwd / ".env").write_text("SIDECAR_TITLE=dotenv\nSIDECAR_ENV=dotenv\nSIDECAR_CONFIG=here.yml\n")
    (cwd / "here.yml").write_text("title: yaml\nenv: yaml\nscope: yaml\n")
    loaded = load({"SIDECAR_TITLE": "environment"}, cwd)
    assert (loaded.settings.title, loaded.settings.env, loaded.settings.scope) == ("environment", "dotenv", "yaml")
    assert loaded.origins == {
        ("title",): "environment",
        ("env",): ".env",
        ("scope",): str(cwd / "here.yml"),
    }


def test_an_empty_variable_is_as_if_not_set(cwd: Path):
    """Compose passes an unset variable on as an empty one; it hides neither the file nor the default."""
    (cwd / "here.yml").write_text("title: yaml\n")
    settings = load_settings({"SIDECAR_CONFIG": "here.yml", "SIDECAR_TITLE": "", "SIDECAR_PORT": ""}, cwd)
    assert (settings.title, settings.port) == ("yaml", 8080)


@pytest.mark.parametrize("name", ["TOKEN", "ADMIN_TOKEN", "REGISTRY_PASSWORD", "SOURCES__DOCKERHUB__TOKEN"])
def test_an_empty_secret_is_an_error(cwd: Path, name: str):
    """An empty secret would protect nothing, so that it is not taken for an unset one."""
    assert f"SIDECAR_{name}=***: is empty" in problems(cwd, **{f"SIDECAR_{name}": ""})[0]


@pytest.mark.parametrize("name", ["TOKEN", "ADMIN_TOKEN", "SOURCES__DOCKERHUB__TOKEN"])
def test_a_short_token_is_an_error(cwd: Path, name: str):
    """What can be guessed is refused, and not shown."""
    line = problem(cwd, **{f"SIDECAR_{name}": "hunter2"})
    assert f"is 7 long; {LENGTH}" in line
    assert "hunter2" not in line


@pytest.mark.parametrize("token", ["0123456789abcde/", "0123456789abcde ", "0123456789abcdeé", "0123456789abcde%"])
def test_a_token_that_cannot_stand_in_an_address_is_an_error(cwd: Path, token: str):
    """A path token has only characters that no sender, proxy or shell rewrites."""
    assert "accepted are letters, digits" in problem(cwd, SIDECAR_TOKEN=token)


@pytest.mark.parametrize("value", ["a,b", " a , b ,", '["a", "b"]', "a\nb"])
def test_a_list_is_json_or_has_commas(cwd: Path, value: str):
    """A list is written as people write lists."""
    assert load_settings({"SIDECAR_ALLOWED_PUSHERS": value}, cwd).allowed_pushers == ("a", "b")


def test_sources_are_json_or_nested_or_yaml(cwd: Path):
    """Sources may be described in one variable, in one for each value, and in the file, all at once."""
    (cwd / "here.yml").write_text("sources:\n  registry:\n    kind: distribution\n    registry: r.example:5000\n")
    environ = {
        "SIDECAR_CONFIG": "here.yml",
        "SIDECAR_SOURCES": '{"hub": {"kind": "dockerhub"}}',
        "SIDECAR_SOURCES__HUB__TOKEN": TOKEN,
        "SIDECAR_SOURCES__HUB__PREVIOUS_TOKEN": OTHER,
        "SIDECAR_SOURCES__REGISTRY__AUTHORIZATION": f"Bearer {TOKEN}",
    }
    sources = load_settings(environ, cwd).sources
    assert set(sources) == {"hub", "registry"}
    assert sources["hub"].tokens == (TOKEN, OTHER)
    assert isinstance(sources["registry"], DistributionSource)
    assert sources["registry"].registry == "r.example:5000"


def test_a_source_called_like_its_kind_needs_none(cwd: Path):
    """The usual source needs only its token."""
    sources = load_settings({"SIDECAR_SOURCES__GENERIC__TOKEN": TOKEN}, cwd).sources
    assert [source.kind for source in sources.values()] == ["generic"]


@pytest.mark.parametrize(
    "environ, line",
    [
        ({"SIDECAR_POTR": "1"}, "SIDECAR_POTR is not known; did you mean SIDECAR_PORT?"),
        ({"SIDECAR_TOKN_FILE": "/x"}, "SIDECAR_TOKN_FILE is not known; did you mean SIDECAR_TOKEN_FILE?"),
        ({"SIDECAR_NOTIFY": ""}, "SIDECAR_NOTIFY is not known; known are ADMIN_PORT, ADMIN_TOKEN, ADMIN_TOKEN_FILE, "),
        (
            {"SIDECAR_SOURCES__HUB__KIND": "dockerhub", "SIDECAR_SOURCES__HUB__TOKN": TOKEN},
            "SIDECAR_SOURCES__HUB__TOKN is not known; did you mean SIDECAR_SOURCES__HUB__TOKEN?",
        ),
        (
            {"SIDECAR_SOURCES": '{"dockerhub": {"registry": "x"}}'},
            "SIDECAR_SOURCES.dockerhub.registry is not known; known are kind, previous_token, previous_",
        ),
        (
            {"SIDECAR_SOURCES__HUB__KIND": "harbour"},
            "SIDECAR_SOURCES__HUB: needs a kind; accepted are dockerhub, distribution, generic",
        ),
        (
            {"SIDECAR_SOURCES__MINE__TOKEN": TOKEN},
            "SIDECAR_SOURCES__MINE: needs a kind; accepted are dockerhub, distribution, generic",
        ),
        (
            {"SIDECAR_SOURCES__GENERIC__PREVIOUS_TOKEN": TOKEN},
            "SIDECAR_SOURCES__GENERIC: has a previous_token and no token that follows it",
        ),
        *(
            (
                {"SIDECAR_SOURCES__DISTRIBUTION__REGISTRY": text},
                f"SIDECAR_SOURCES__DISTRIBUTION__REGISTRY='{text}': is no registry as it stands in an image's name",
            )
            for text in ("registry", "https://r.example", "r.example/path", "r_example:5000")
        ),
        ({"SIDECAR_PORT__X": "1"}, "SIDECAR_PORT: should be a valid integer"),
        ({"SIDECAR_PORT": "eighty"}, "SIDECAR_PORT='eighty': should be a valid integer"),
        ({"SIDECAR_PORT": "65536"}, "SIDECAR_PORT='65536': should be less than or equal to 65535"),
        ({"SIDECAR_ADMIN_PORT": "8080"}, "SIDECAR_ADMIN_PORT and SIDECAR_PORT are both 8080"),
        ({"SIDECAR_DOCS": "maybe"}, "SIDECAR_DOCS='maybe': should be a valid boolean"),
        ({"SIDECAR_PRUNE": "all"}, "SIDECAR_PRUNE='all': should be 'none', 'replaced', 'dangling' or 'system'"),
        ({"SIDECAR_ENGINES": "docker,swarm"}, "SIDECAR_ENGINES='docker,swarm': swarm is not supported yet; auto and"),
        *(
            (
                {"SIDECAR_RESYNC_SECONDS": text},
                f"SIDECAR_RESYNC_SECONDS='{text}': is no number of seconds from 0 up; {HOW}",
            )
            for text in ("-1", "6h", "inf", "nan", "never")
        ),
        ({"SIDECAR_SETTLE_SECONDS": "1m"}, "SIDECAR_SETTLE_SECONDS='1m': is no number of seconds from 0 up; accepted"),
        ({"SIDECAR_ALLOWED_PUSHERS": "[1"}, "SIDECAR_ALLOWED_PUSHERS='[1': is no JSON list"),
        ({"SIDECAR_ROOT_PATH": "/a b"}, "SIDECAR_ROOT_PATH='/a b': is no path; something like /sidecar"),
        ({"SIDECAR_PUBLIC_URL": "hooks.example.com"}, "SIDECAR_PUBLIC_URL='hooks.example.com': is no web address"),
        ({"SIDECAR_DOCKER_HOST": "ssh://host"}, "SIDECAR_DOCKER_HOST='ssh://host': is no engine address"),
        ({"DOCKER_HOST": "npipe:////./pipe/x"}, "DOCKER_HOST='npipe:////./pipe/x': is no engine address"),
        (
            {"SIDECAR_REGISTRY_CREDENTIALS": "/nowhere"},
            "SIDECAR_REGISTRY_CREDENTIALS='/nowhere': there is no such file",
        ),
        (
            {"SIDECAR_REGISTRY_CA_FILE": "/nowhere"},
            "SIDECAR_REGISTRY_CA_FILE='/nowhere': Path does not point to a file",
        ),
        ({"SIDECAR_REGISTRY_USERNAME": "me"}, "SIDECAR_REGISTRY_USERNAME and SIDECAR_REGISTRY_PASSWORD are accepted"),
        ({"SIDECAR_SOURCES": "[1]"}, f"SIDECAR_SOURCES: a JSON object like {EXAMPLE} is accepted, not a list"),
        ({"SIDECAR_SOURCES": '{"a":'}, "SIDECAR_SOURCES: is no JSON"),
        ({"SIDECAR_SOURCES__A": "x"}, f"SIDECAR_SOURCES__A=***: is no source; SOURCES are something like {EXAMPLE}"),
        ({"SIDECAR_PUBLIC_URL": "ftp://x"}, "SIDECAR_PUBLIC_URL='ftp://x': is no web address"),
        ({"SIDECAR_SOURCES__A.B__KIND": "generic"}, "SIDECAR_SOURCES: has a source called 'a.b'"),
        ({"SIDECAR_TOKEN_FILE": "/nowhere"}, "reading SIDECAR_TOKEN_FILE='/nowhere': No such file or directory"),
        ({"SIDECAR_CONFIG": "nowhere.yml"}, "reading SIDECAR_CONFIG="),
    ],
)
def test_what_is_wrong_is_said_in_one_line(cwd: Path, environ: dict[str, str], line: str):
    """A problem is one line: the key as written, the value, and what is accepted."""
    assert problem(cwd, **environ).startswith(line)


def test_who_gets_sources_wrong_is_shown_some(cwd: Path):
    """The example that stands in the messages is itself accepted, once a token is put in its place."""
    assert f"a JSON object like {EXAMPLE} is accepted" in problem(cwd, SIDECAR_SOURCES='{"a":')
    (cwd / "here.yml").write_text("sources: [dockerhub]\n")
    assert f"is no source; SOURCES are something like {EXAMPLE}" in problem(cwd, SIDECAR_CONFIG="here.yml")
    sources = load_settings({"SIDECAR_SOURCES": EXAMPLE.replace("...", TOKEN)}, cwd).sources
    assert sources["ci"].tokens == (TOKEN,)


def test_all_problems_are_said_at_once(cwd: Path):
    """Somebody who got three things wrong is told three things, not one after the other."""
    lines = problems(cwd, SIDECAR_POTR="1", SIDECAR_PORT="x", SIDECAR_PRUNE="y", SIDECAR_SOURCES="{")
    assert [line.split("=")[0].split()[0].rstrip(":") for line in lines] == [
        "SIDECAR_SOURCES",
        "SIDECAR_POTR",
        "SIDECAR_PORT",
        "SIDECAR_PRUNE",
    ]


def test_a_secret_in_a_source_is_never_shown(cwd: Path):
    """Whatever is wrong with a source, its values stay out of the message."""
    lines = problems(
        cwd,
        SIDECAR_SOURCES='{"hub": {"kind": "dockerhub", "token": "hunter2"}, "x": "hunter2"}',
        SIDECAR_SOURCES__Y__KIND="hunter2",
        SIDECAR_REGISTRY_PASSWORD="hunter2",
    )
    assert len(lines) == 3
    assert "hunter2" not in "\n".join(lines)


def test_a_secret_may_stand_in_a_file(cwd: Path):
    """A secret is read from its file without the line break that editors add."""
    (cwd / "secret").write_text(f"{TOKEN}\r\n")
    path = str(cwd / "secret")
    loaded = load({"SIDECAR_TOKEN_FILE": path, "SIDECAR_SOURCES__GENERIC__TOKEN_FILE": path}, cwd)
    assert loaded.settings.token is not None
    assert loaded.settings.token.get_secret_value() == TOKEN
    assert loaded.settings.sources["generic"].tokens == (TOKEN,)
    assert loaded.origins["token",] == path


def test_a_secret_file_that_is_empty_or_no_text_is_an_error(cwd: Path):
    """A file that holds no secret is told by its path, and its content is not shown."""
    (cwd / "empty").write_text("\n")
    (cwd / "binary").write_bytes(b"hunter2\xff")
    assert f"SIDECAR_TOKEN_FILE=*** in {cwd / 'empty'}: is empty" in problem(cwd, SIDECAR_TOKEN_FILE=str(cwd / "empty"))
    line = problem(cwd, SIDECAR_TOKEN_FILE=str(cwd / "binary"))
    assert "it is no UTF-8 text" in line
    assert "hunter2" not in line


def test_a_secret_and_its_file_contradict_each_other(cwd: Path):
    """Which of two was meant is not guessed; in two places the nearer one counts."""
    (cwd / "secret").write_text(OTHER)
    path = str(cwd / "secret")
    line = problem(cwd, SIDECAR_TOKEN=TOKEN, SIDECAR_TOKEN_FILE=path)
    assert line == "SIDECAR_TOKEN_FILE and SIDECAR_TOKEN are both given; one of them is accepted"
    (cwd / ".env").write_text(f"SIDECAR_TOKEN_FILE={path}\n")
    settings = load_settings({"SIDECAR_TOKEN": TOKEN}, cwd)
    assert settings.token is not None
    assert settings.token.get_secret_value() == TOKEN


def test_settings_do_not_show_secrets(cwd: Path):
    """Printed settings hide every secret, and all of them are known to the log."""
    environ = {
        "SIDECAR_TOKEN": TOKEN,
        "SIDECAR_ADMIN_TOKEN": f"{TOKEN}+admin",
        "SIDECAR_REGISTRY_USERNAME": "me",
        "SIDECAR_REGISTRY_PASSWORD": "hunter2",
        "SIDECAR_SOURCES__GENERIC__AUTHORIZATION": f"Bearer {OTHER}",
        "SIDECAR_SOURCES__GENERIC__TOKEN": f"{OTHER}-new",
        "SIDECAR_SOURCES__GENERIC__PREVIOUS_TOKEN": f"{OTHER}-old",
    }
    settings = load_settings(environ, cwd)
    expected = {TOKEN, f"{TOKEN}+admin", "hunter2", f"Bearer {OTHER}", f"{OTHER}-new", f"{OTHER}-old"}
    assert settings.secret_values() == expected
    assert not [secret for secret in expected if secret in repr(settings)]


def test_every_secret_is_named_as_one():
    """A field that holds a secret is masked in messages and may stand in a file."""
    models = [Settings.model_fields, *SOURCE_FIELDS.values()]
    secret = {name for fields in models for name, field in fields.items() if "SecretStr" in str(field.annotation)}
    assert secret == SECRETS


def test_dotenv_is_read_literally(cwd: Path):
    """In `.env` a dollar sign is a dollar sign, and keys of other programs are theirs."""
    (cwd / ".env").write_text(
        "# comment\nOTHER_PORT=9\nPORT=9\nexport SIDECAR_TITLE='a $b'\r\nSIDECAR_REGISTRY_USERNAME=me\n"
        "SIDECAR_REGISTRY_PASSWORD=p${HOME}#x\n"
    )
    settings = load_settings({"HOME": "/home/me"}, cwd)
    assert (settings.title, settings.port) == ("a $b", 8080)
    assert settings.registry_password is not None
    assert settings.registry_password.get_secret_value() == "p${HOME}#x"


def test_a_broken_dotenv_is_told_by_its_line(cwd: Path):
    """A line that says nothing is no reason to guess, nor to show it."""
    (cwd / ".env").write_text("SIDECAR_TITLE=x\nSIDECAR_TOKEN = 'hunter2\n")
    line = problem(cwd)
    assert "line 2 is not of the form KEY=value" in line
    assert "hunter2" not in line
    (cwd / ".env").write_bytes(b"SIDECAR_TITLE=\xff")
    assert "it is no UTF-8 text" in problem(cwd)
    (cwd / ".env").write_text("SIDECAR_POTR=1\n")
    assert problem(cwd) == "SIDECAR_POTR in .env is not known; did you mean SIDECAR_PORT?"


@pytest.mark.parametrize(
    "text, line",
    [
        ("token: [hunter2", "it is not valid YAML near line"),
        ("- hunter2", "expected settings as `name: value` lines, got a list"),
        ("potr: hunter2", "here.yml is not known; did you mean port?"),
        ("port: [8080]", "port=[8080] in "),
        ("sources:\n  x: hunter2", "sources.x=*** in "),
        ("token: !!python/object/apply:os.system [x]", "it is not valid YAML near line 1"),
    ],
)
def test_a_wrong_file_is_told_by_its_name(cwd: Path, text: str, line: str):
    """What is wrong in the YAML file names the file, and never shows what may be a secret."""
    (cwd / "here.yml").write_text(text)
    told = problem(cwd, SIDECAR_CONFIG="here.yml")
    assert line in told
    assert "here.yml" in told
    assert "hunter2" not in told


def test_yaml_is_written_in_its_own_types(cwd: Path):
    """In the file a list is a list, a number a number, and an address is read like anywhere else."""
    (cwd / "here.yml").write_text("allowed_pushers: [a, b]\nport: 81\ntitle: 7\npublic_url: https://x.example/\n")
    settings = load_settings({"SIDECAR_CONFIG": "here.yml"}, cwd)
    assert (settings.allowed_pushers, settings.port, settings.title) == (("a", "b"), 81, "7")
    assert settings.public_url == "https://x.example"


def test_an_empty_file_is_no_setting(cwd: Path):
    """A file in which everything is commented out says nothing."""
    (cwd / "here.yml").write_text("# port: 1\n")
    assert load_settings({"SIDECAR_CONFIG": "here.yml"}, cwd).port == 8080


def test_variables_of_a_service_called_sidecar_are_not_ours(cwd: Path):
    """Kubernetes describes a service called sidecar in variables with our prefix; they are passed over."""
    environ = {
        "SIDECAR_SERVICE_HOST": "10.0.0.1",
        "SIDECAR_SERVICE_PORT": "80",
        "SIDECAR_SERVICE_PORT_HTTP": "80",
        "SIDECAR_PORT": "tcp://10.0.0.1:80",
        "SIDECAR_PORT_80_TCP": "tcp://10.0.0.1:80",
        "SIDECAR_PORT_80_TCP_ADDR": "10.0.0.1",
        "SIDECAR_SERVER": "http://sidecar:8080",
    }
    assert load_settings(environ, cwd).port == 8080


def test_other_programs_variables_count_last(cwd: Path):
    """DOCKER_HOST, DOCKER_CONFIG and XDG_STATE_HOME are honoured, and ours count before them."""
    standard = {"DOCKER_HOST": "tcp://a:2375", "DOCKER_CONFIG": "/a", "XDG_STATE_HOME": "/a"}
    settings = load_settings(standard, cwd)
    assert settings.docker_host == "tcp://a:2375"
    assert settings.registry_credentials == Path("/a/config.json")
    assert settings.state_dir == Path("/a/sidecar")
    (cwd / "config.json").write_text("{}")
    ours = {
        "SIDECAR_DOCKER_HOST": "tcp://b:2375",
        "SIDECAR_REGISTRY_CREDENTIALS": str(cwd / "config.json"),
        "SIDECAR_STATE_DIR": "/b",
    }
    settings = load_settings(standard | ours, cwd)
    assert settings.docker_host == "tcp://b:2375"
    assert settings.registry_credentials == cwd / "config.json"
    assert settings.state_dir == Path("/b")


def test_a_relative_state_home_is_ignored(cwd: Path):
    """The XDG specification says so."""
    settings = load_settings({"HOME": "/home/me", "XDG_STATE_HOME": "here"}, cwd)
    assert settings.state_dir == Path("/home/me/.local/state/sidecar")


@pytest.mark.parametrize("written", ["sidecar", "/sidecar", "/sidecar/", "sidecar/"])
def test_the_root_path_starts_with_a_slash_and_ends_with_none(cwd: Path, written: str):
    """However it is written, it is one path."""
    assert load_settings({"SIDECAR_ROOT_PATH": written}, cwd).root_path == "/sidecar"


def test_one_value_is_found_without_judging_the_rest(cwd: Path):
    """A command that needs one value at once finds it in every place, and trips over no other."""
    (cwd / ".env").write_text("SIDECAR_PORT=81\nSIDECAR_POTR=1\n")
    assert peek("port", {}, cwd) == "81"
    assert peek("port", {"SIDECAR_PORT": "82"}, cwd) == "82"
    assert peek("host", {}, cwd) is None


# A few characters that mean something somewhere; all of Unicode would take longer to set up than the rest of this file.
SOME_TEXT = st.text('ab_1.{}[]":,$=\n\x00\x7fé\u2028\ud800')


@given(st.dictionaries(SOME_TEXT, SOME_TEXT, max_size=3), SOME_TEXT)
def test_no_text_breaks_the_reading(keys: dict[str, str], value: str):
    """Whatever is written, the answer is settings or a problem, never a defect."""
    environ = {f"SIDECAR_{key}": text for key, text in keys.items()} | {"SIDECAR_SOURCES": value}
    with suppress(Misconfigured):
        load_settings(environ, Path("/nonexistent"))
