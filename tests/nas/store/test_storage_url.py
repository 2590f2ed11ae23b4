"""Passwords of storage URLs are shown and stored nowhere."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_fakes import SPACE
from sqlalchemy.engine import make_url

from nas.cli.main import main
from nas.records.config import SearchConfig
from nas.store import new_run, run_file
from nas.store.storage_url import scrub, shown, with_password, without_password


@pytest.mark.parametrize(
    ("url", "kept", "show"),
    [
        ("postgresql://me:s3cret@h/d", "postgresql://me@h/d", "postgresql://me:***@h/d"),
        ("postgresql+psycopg://me:a%40b@h:5/d", None, "postgresql+psycopg://me:***@h:5/d"),
        ("postgresql://me:a@b/c@h/d", "postgresql://me@h/d", "postgresql://me:***@h/d"),
        ("postgresql://:s3cret@h/d", "postgresql://@h/d", "postgresql://:***@h/d"),
        ("postgresql://h/d?user=me&password=x", "postgresql://h/d?user=me", None),
        (
            "mysql://me@h/d?passwd=x&ssl=1",
            "mysql://me@h/d?ssl=1",
            "mysql://me@h/d?passwd=***&ssl=1",
        ),
        ("sqlite:////tmp/a b.db", "sqlite:////tmp/a b.db", "sqlite:////tmp/a b.db"),
        ("postgresql://me@h/d", "postgresql://me@h/d", "postgresql://me@h/d"),
        ("postgresql:me:s3cret@h", "URL that is no storage URL", "URL that is no storage URL"),
        ("http://[broken?password=x", "URL that is no storage URL", None),
    ],
)
def test_a_url_is_kept_without_its_password(url, kept, show):
    assert kept is None or without_password(url) == kept
    assert show is None or shown(url) == show


@given(st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=4))
def test_no_password_survives(password):
    url = f"postgresql://me:{password}@host.example/study"
    for text in (without_password(url), shown(url)):
        assert text.replace("***", "") in (
            "postgresql://me@host.example/study",
            "postgresql://me:@host.example/study",
        )


def test_errors_of_drivers_are_scrubbed():
    url = "postgresql://me:p%40ss@h/d"
    told = f"cannot parse {url}; tried password p@ss and p%40ss for passenger"
    assert scrub(told, url) == (
        "cannot parse postgresql://me:***@h/d; tried password *** and *** for passenger"
    )


def test_the_environment_gives_the_password(monkeypatch):
    monkeypatch.setenv("JOULENAS_STORAGE_PASSWORD", "a@b/c")
    full = with_password("mysql://me@h/d")
    assert make_url(full).password == "a@b/c" and make_url(full).host == "h"
    # One that is given wins; without a user there is nobody whose password it would be.
    assert with_password("mysql://me:x@h/d") == "mysql://me:x@h/d"
    assert with_password("sqlite:///x.db") == "sqlite:///x.db"
    monkeypatch.delenv("JOULENAS_STORAGE_PASSWORD")
    assert with_password("mysql://me@h/d") == "mysql://me@h/d"


def test_a_run_folder_holds_no_password_and_the_command_line_prints_none(tmp_path, capsys):
    url = "postgresql://me:s3cret@127.0.0.1:1/d"
    config = SearchConfig(task="digits", space=SPACE, trials=1, storage=url)
    run = new_run.create(tmp_path / "run", config, "fake")
    for path in run.folder.rglob("*"):
        assert not path.is_file() or "s3cret" not in path.read_text()
    assert run_file.load(run.folder).config.storage == "postgresql://me@127.0.0.1:1/d"
    before = json.loads((run.folder / "run.json").read_text())
    for line in (
        ["front", str(run.folder)],
        ["resume", str(run.folder), "--storage", url],
        ["search", "--resume", "--run", str(run.folder), "--storage", url],
    ):
        assert main(line) in (1, 2)
        said = "".join(capsys.readouterr())
        assert "s3cret" not in said and "Traceback" not in said
    assert json.loads((run.folder / "run.json").read_text()) == before
