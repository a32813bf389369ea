"""Generated tokens: made once, kept, readable by their owner only."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sidecar.errors import Misconfigured
from sidecar.settings_model import Settings
from sidecar.tokens import ADMIN, LENGTH, SHORTEST, WEBHOOK, keep_token, kept_token, rotate_token

ROOT = Path(__file__).parents[1]


def test_a_token_is_made_once(tmp_path: Path):
    """The second time the same token is given; another name is another token."""
    folder = tmp_path / "state" / "sidecar"
    assert kept_token(folder, WEBHOOK) is None
    token = keep_token(folder, WEBHOOK)
    assert keep_token(folder, WEBHOOK) == kept_token(folder, WEBHOOK) == token
    assert keep_token(folder, ADMIN) != token
    assert len(token) == 32


def test_only_the_owner_reads_a_token(tmp_path: Path):
    """File and folder are closed to others from the first moment, and nothing else is left."""
    keep_token(tmp_path / "state", WEBHOOK)
    rotate_token(tmp_path / "state", WEBHOOK)
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert [(path.name, stat.S_IMODE(path.stat().st_mode)) for path in (tmp_path / "state").iterdir()] == [
        ("token", 0o600)
    ]


def test_of_many_at_once_one_makes_it(tmp_path: Path):
    """Whoever comes first makes the token, and everybody gets that one."""
    with ThreadPoolExecutor(8) as pool:
        tokens = set(pool.map(lambda _: keep_token(tmp_path, WEBHOOK), range(8)))
    assert len(tokens) == 1


def test_a_rotated_token_is_another(tmp_path: Path):
    """The old one is gone."""
    token = keep_token(tmp_path, WEBHOOK)
    assert rotate_token(tmp_path, WEBHOOK) == kept_token(tmp_path, WEBHOOK) != token


def test_a_file_system_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Some mounts know no links; the token is kept all the same."""

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert keep_token(tmp_path, WEBHOOK) == kept_token(tmp_path, WEBHOOK)


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 32])
def test_a_file_that_holds_no_token_is_an_error(tmp_path: Path, content: bytes):
    """Something else under that name is neither used nor overwritten."""
    (tmp_path / WEBHOOK).write_bytes(content)
    with pytest.raises(Misconfigured, match="reading the token in"):
        keep_token(tmp_path, WEBHOOK)
    assert (tmp_path / WEBHOOK).read_bytes() == content


def test_how_long_a_token_is_at_least_is_said_in_one_way(tmp_path: Path):
    """In messages, in what Compose asks for, and beside the settings stands the same number."""
    (tmp_path / WEBHOOK).write_text("short")
    with pytest.raises(Misconfigured) as caught:
        kept_token(tmp_path, WEBHOOK)
    assert f"it is 5 long; {LENGTH}; " in str(caught.value)
    assert f"${{SIDECAR_TOKEN:?{LENGTH}}}" in (ROOT / "compose.example.yml").read_text()
    words = f"at least {SHORTEST} characters"
    assert words in LENGTH
    assert words in (ROOT / "README.md").read_text()
    assert all(words in str(Settings.model_fields[name].description) for name in ("token", "admin_token"))


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path):
    """The message says which folder, for whom, and which setting names another."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match=r"keeping a token in .*writable for user \d+, or name another by SIDECAR_"):
        rotate_token(tmp_path / "file" / "state", WEBHOOK)
