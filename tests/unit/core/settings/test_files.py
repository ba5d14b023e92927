"""Settings from `.env` and from secret files: values arrive exactly as written."""

import os
from pathlib import Path

import pytest

from example_service.core.exceptions import SettingsError
from example_service.core.settings import Settings, load_settings
from example_service.core.settings.files import read_env_file
from example_service.core.settings.loading import variable_sources

SECRET = "p$HOME${PATH}#\"'\\n q%40 #x"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (f"NAME={SECRET}", SECRET),
        (f'NAME="{SECRET}"', SECRET),
        (f"NAME='{SECRET}'", SECRET),
        (f"export NAME = {SECRET}  ", SECRET),
        ("\ufeffNAME=first", "first"),
        ('NAME="', '"'),
        ("NAME=a=b", "a=b"),
        ('NAME=["a", "b"]', '["a", "b"]'),
        ("NAME=$(command)", "$(command)"),
        ("NAME=form\x0cfeed\u2028and separator\r", "form\x0cfeed\u2028and separator"),
    ],
)
def test_a_value_arrives_as_it_is_written(line: str, value: str, tmp_path: Path) -> None:
    """Nothing is expanded, and a `#` after a value is part of it."""
    (tmp_path / ".env").write_text(f"{line}\n# NAME=comment\n#NAME=comment\n\nOTHER=\n")

    assert read_env_file(tmp_path / ".env") == {"name": value}


@pytest.mark.parametrize(
    "text",
    ["PORT: 81", "set PORT=81", "PORT", '{"PORT": 81}', 'ADMIN__TOKEN="first\nsecond"', "P\0"],
)
def test_a_line_that_sets_nothing_is_reported_by_its_number(text: str, tmp_path: Path) -> None:
    """Otherwise the service would start without the setting, or with a part of it."""
    (tmp_path / ".env").write_text(f"# settings\n{text}\nWORKERS=2\n")

    with pytest.raises(SettingsError, match=r"\.env +has a line [23] that is not NAME=VALUE"):
        read_env_file(tmp_path / ".env")


def test_an_env_file_that_is_no_file_is_reported(tmp_path: Path) -> None:
    """Docker creates a folder in place of a file that it cannot find."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("missing")
    os.mkfifo(tmp_path / "pipe")

    for name in ("folder", "link", "pipe"):
        with pytest.raises(SettingsError, match=rf"{name} +cannot be read: "):
            read_env_file(tmp_path / name)
    assert read_env_file(tmp_path / "missing") == {}


def test_secrets_are_read_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file has one value; other files that an orchestrator puts there are ignored."""
    token = "Zk3vq0YJ5b-8sWmR1tXeL9aHcU7dNfGi"
    (tmp_path / "DATABASE_URL").write_text("sqlite:///somewhere\n")
    (tmp_path / "admin__token").write_text(f"{token}\n")
    (tmp_path / "PORT").write_text("1")
    (tmp_path / "..data").mkdir()
    (tmp_path / ".hidden").write_bytes(b"\xff")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("PORT", "2")
    monkeypatch.delenv("DATABASE_URL")

    settings = load_settings()

    assert settings.database_url.get_secret_value() == "sqlite:///somewhere"
    assert settings.admin.token is not None
    assert settings.admin.token.get_secret_value() == token
    assert settings.port == 2
    assert variable_sources()["ADMIN__TOKEN"] == "SECRETS_DIR"


def test_the_folder_may_be_named_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`.env` is read first, so it can set SECRETS_DIR."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "PORT").write_text("7\n")
    (tmp_path / ".env").write_text(f"SECRETS_DIR={tmp_path}/secrets\n")
    monkeypatch.setattr(Settings, "env_path", tmp_path / ".env")

    assert load_settings().port == 7


def test_a_misspelt_secret_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of secret files are checked like those of variables."""
    (tmp_path / "ADMIN__TOKN").write_text("secret")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))

    with pytest.raises(SettingsError, match="did you mean ADMIN__TOKEN"):
        load_settings()


def test_an_unreadable_folder_of_secrets_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder may be missing."""
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path / "missing"))

    with pytest.raises(SettingsError, match=r"SECRETS_DIR +cannot be read: No such file"):
        load_settings()


@pytest.mark.parametrize("name", ["ADMIN__TOKEN", "port", "CIRCUIT_BREAKERS__SEARCH__CRITICAL"])
def test_a_secret_that_cannot_be_read_is_reported_by_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a folder, a link to nothing, a pipe or not text."""
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    path = tmp_path / name
    for create, remove in (
        (path.mkdir, path.rmdir),
        (lambda: path.symlink_to("missing"), path.unlink),
        (lambda: os.mkfifo(path), path.unlink),
        (lambda: path.write_bytes(b"\xff"), path.unlink),
    ):
        create()
        with pytest.raises(
            SettingsError, match=rf"{name.upper()} +cannot be read from SECRETS_DIR"
        ):
            load_settings()
        remove()


def test_other_files_in_a_folder_of_secrets_may_be_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`/run/secrets` may also have the folders and key stores of other programs."""
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    for folder in ("kubernetes.io", "database", "admin"):
        (tmp_path / folder).mkdir()
    (tmp_path / "keystore.jks").write_bytes(b"\xff\xfe")
    (tmp_path / "PORT").write_text("7\r\n")

    assert load_settings().port == 7
