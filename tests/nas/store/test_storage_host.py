"""A run folder from somebody else leads to no host of its own, and reading changes nothing."""

import json
import shutil
import socket
import sqlite3
import struct
import threading
from contextlib import contextmanager

import pytest
from run_fakes import make_run
from search_fakes import SPACE, drive, make_session

import nas
from nas.cli.main import main
from nas.records.config import SearchConfig
from nas.store import new_run
from nas.store.files_host import place_of
from nas.store.recorded import Recorded
from nas.store.storage import StudyStore

SECRET = "an0ther-s3cret"


class Listener:
    """A server that asks for the password in clear, and what it was sent."""

    def __init__(self):
        self.connections, self.heard = 0, b""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            with client:
                client.settimeout(3)
                try:
                    self._ask(client)
                except (OSError, struct.error):
                    continue

    def _ask(self, client):
        while True:
            (length,) = struct.unpack(">I", client.recv(4))
            body = client.recv(length - 4)
            if struct.unpack(">I", body[:4])[0] not in (80877103, 80877104):
                break
            client.sendall(b"N")
        client.sendall(b"R" + struct.pack(">II", 8, 3))
        self.heard += client.recv(1000)

    def close(self):
        self._socket.close()


@pytest.fixture
def listener():
    server = Listener()
    yield server
    server.close()


@pytest.fixture
def secrets_set(monkeypatch, tmp_path):
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE", "PGPASSFILE", "PGSSLMODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("PGPASSWORD", SECRET)
    monkeypatch.setenv("JOULENAS_STORAGE_PASSWORD", SECRET)


def a_run(folder, url=None, **changes):
    """A run whose ``run.json`` somebody has changed by hand."""
    config = SearchConfig(task="digits", space=SPACE, trials=2, meter="estimate")
    run = new_run.create(folder, config, "estimate")
    path = run.folder / "run.json"
    data = json.loads(path.read_text())
    data["config"] |= {"storage": url} | changes
    path.write_text(json.dumps(data))
    return run.folder


@contextmanager
def refused(capsys, *words):
    yield
    said = capsys.readouterr()
    lines = said.err.strip().splitlines()
    assert SECRET not in said.err + said.out and "Traceback" not in said.err
    assert all(word in lines[-1] for word in words), said.err


URLS = [
    "postgresql+psycopg://me@127.0.0.1:{port}/db",
    "postgresql://me@127.0.0.1:{port}/db",
    "postgresql+psycopg://127.0.0.1:{port}/db?user=me",
    "postgresql+psycopg://me@/db?host=127.0.0.1&port={port}",
    "postgresql+psycopg://me@/db?host=127.0.0.1:{port}",
    "postgresql+psycopg://me@db.example/db?host=127.0.0.1:{port}",
    "postgresql+psycopg://me@db.example:{port}/db?hostaddr=127.0.0.1",
    "postgresql+psycopg://me@/db?host=db.example:{port}&host=127.0.0.1:{port}",
    "postgresql+psycopg://me@db.example,127.0.0.1:{port}/db",
    "postgresql+psycopg://me@db.example/db?service=theirs",
    "postgresql+psycopg://me@db.example/db?passfile=/etc/passwd&hostaddr=127.0.0.1",
    "postgresql+psycopg://me:theirs@127.0.0.1:{port}/db",
    "postgresql+psycopg://me@/host%3D127.0.0.1%20port%3D{port}",
    "postgresql+psycopg://me@:{port}/db",
    "postgresql+psycopg://me@/db?host=/tmp/of-somebody&port={port}",
    "postgresql+pg8000://me@127.0.0.1:{port}/db",
    "mysql+pymysql://me@127.0.0.1:{port}/db",
    "mysql://me@127.0.0.1:{port}/db",
    "oracle://me@127.0.0.1:{port}/db",
    "postgresql+psycopg://me@127.0.0.1:{port}/db?plugin=x",
    "redis://127.0.0.1:{port}/0",
]


@pytest.mark.parametrize("url", URLS)
def test_no_host_of_a_run_folder_is_connected_to(url, listener, secrets_set, tmp_path, capsys):
    folder = str(a_run(tmp_path / "run", url.format(port=listener.port)))
    for verb in (["front", folder], ["report", folder], ["plot", folder, "--to", "x"]):
        with refused(capsys):
            assert main(verb) == 2
    assert listener.connections == 0


@pytest.mark.parametrize(
    "words",
    [
        ["front", "{run}"],
        ["explain", "{run}", "0"],
        ["compare", "{run}", "{other}"],
        ["compare", "{other}", "{run}"],
        ["plot", "{run}", "--what", "importance", "--to", "{tmp}/a.png"],
        ["report", "{run}"],
        ["report", "{run}", "--watch", "--port", "0"],
        ["export", "{run}", "--trial", "0", "--to", "{tmp}/model"],
        ["resume", "{run}"],
        ["search", "--resume", "--run", "{run}"],
    ],
)
def test_every_verb_names_the_option(words, listener, secrets_set, tmp_path, capsys):
    url = f"postgresql+psycopg://me@127.0.0.1:{listener.port}/db"
    run = a_run(tmp_path / "run", url)
    other = make_run(tmp_path / "other", trials=2).folder
    line = [word.format(run=run, other=other, tmp=tmp_path) for word in words]
    with refused(capsys, "--storage", "127.0.0.1"):
        assert main(line) == 2
    assert listener.connections == 0


def test_a_run_to_start_from_is_no_exception(listener, secrets_set, tmp_path):
    url = f"postgresql+psycopg://me@127.0.0.1:{listener.port}/db"
    run = a_run(tmp_path / "run", url)
    config = SearchConfig(
        task="digits", space=SPACE, trials=1, meter="estimate", warm_start=(str(run),)
    )
    with pytest.raises(RuntimeError, match="--storage"):
        nas.search(config, tmp_path / "new")
    assert listener.connections == 0 and not (tmp_path / "new").exists()


@pytest.mark.parametrize("how", ["option", "PGHOST", "pgpass", "PGPASSFILE", "python"])
def test_a_host_that_the_user_names_is_asked(how, listener, secrets_set, tmp_path, monkeypatch):
    url = f"postgresql+psycopg://me@127.0.0.1:{listener.port}/db"
    folder, words = str(a_run(tmp_path / "run", url)), []
    entry = f"127.0.0.1:{listener.port}:*:me:{SECRET}\n"
    if how == "option":
        words = ["--storage", url]
    elif how == "PGHOST":
        monkeypatch.setenv("PGHOST", "127.0.0.1")
    elif how in ("pgpass", "PGPASSFILE"):
        path = tmp_path / "home" / (".pgpass" if how == "pgpass" else "elsewhere")
        path.write_text(entry)
        path.chmod(0o600)
        if how == "PGPASSFILE":
            monkeypatch.setenv("PGPASSFILE", str(path))
    if how == "python":
        with pytest.raises(RuntimeError):
            nas.load(folder, storage=url).front()
    else:
        assert main(["front", folder, *words]) == 2
    assert SECRET.encode() in listener.heard


@pytest.mark.parametrize(
    "environment",
    [
        {"PGHOST": "db.example"},
        {"PGHOST": "127.0.0.1", "PGPORT": "1"},
        {"PGPASSFILE": "*:*:*:me:x"},
        {"PGPASSFILE": "127.0.0.1:1:*:me:x"},
        {"PGPASSFILE": "#127.0.0.1:*:*:me:x"},
    ],
)
def test_a_name_of_another_server_does_not_count(
    environment, listener, secrets_set, tmp_path, monkeypatch, capsys
):
    for name, value in environment.items():
        if name == "PGPASSFILE":
            (tmp_path / "pass").write_text(value + "\n")
            (tmp_path / "pass").chmod(0o600)
            value = str(tmp_path / "pass")
        monkeypatch.setenv(name, value)
    folder = a_run(tmp_path / "run", f"postgresql+psycopg://me@127.0.0.1:{listener.port}/db")
    with refused(capsys, "--storage"):
        assert main(["front", str(folder)]) == 2
    assert listener.connections == 0


def test_a_weaker_encryption_is_not_a_run_folders_to_choose(secrets_set, tmp_path, monkeypatch):
    monkeypatch.setenv("PGHOST", "db.example")
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    folder = a_run(tmp_path / "run", "postgresql+psycopg://me@db.example/db?sslmode=disable")
    with pytest.raises(RuntimeError, match="sslmode verify-full"):
        nas.load(folder).trials()


ELSEWHERE = "s3://bucket/prefix?endpoint_override=127.0.0.1:9&scheme=http&region=eu-west-1"


def test_an_object_store_elsewhere_must_be_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    run = nas.load(a_run(tmp_path / "run", files_at=ELSEWHERE))
    with pytest.raises(ValueError, match="127.0.0.1:9: name it with --storage"):
        run.weights_path(0)
    for url in ("s3://b/p?scheme=http", "gs://b/p?endpoint_override=h", "s3://b/p?region=x.y"):
        with pytest.raises(ValueError, match="storage"):
            place_of(Recorded(url))
    assert str(place_of(Recorded("s3://bucket/prefix?region=eu-west-1"))) == "s3://bucket/prefix"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://127.0.0.1:9")
    with pytest.raises(ValueError, match="--storage"):
        run.weights_path(0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9/")
    assert run.weights_path(0).bucket == "bucket"
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    named = nas.load(run.folder, files_at=ELSEWHERE)
    assert named.weights_path(0).bucket == "bucket"
    # What he named once, he need not name for each command.
    monkeypatch.setattr("nas.store.recorded._named", set())
    assert run.weights_path(0).bucket == "bucket"


def test_a_cluster_of_a_run_folder_must_have_been_named(listener, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folder = a_run(tmp_path / "run")
    data = json.loads((folder / "run.json").read_text())
    data["driver"]["address"] = f"127.0.0.1:{listener.port}"
    (folder / "run.json").write_text(json.dumps(data))
    for address in (f"127.0.0.1:{listener.port}", f"ray://127.0.0.1:{listener.port}"):
        data["driver"]["address"] = address
        (folder / "run.json").write_text(json.dumps(data))
        with refused(capsys, "--address", address):
            assert main(["resume", str(folder)]) == 2
    assert listener.connections == 0


def sqlite_study(path, name="study"):
    url = f"sqlite:///{path}"
    session = make_session(path.parent, storage=url, run_name=name, trials=2, sampler="random")
    drive(session)
    return url


def tables(path):
    with sqlite3.connect(path) as database:
        return database.execute("select name from sqlite_master order by name").fetchall()


@pytest.mark.parametrize(
    "layout", ["absolute", "dots", "link", "query", "uri", "memory", "absent"]
)
def test_a_database_outside_the_run_folder_is_not_touched(layout, tmp_path, capsys):
    outside, folder = tmp_path / "outside.db", tmp_path / "run"
    sqlite3.connect(outside).execute("create table theirs (x)").connection.commit()
    url = {
        "absolute": f"sqlite:///{outside}",
        "dots": f"sqlite:///{folder}/../outside.db",
        "link": f"sqlite:///{folder}/link.db",
        "query": f"sqlite:///{folder}/study.db?timeout=1",
        "uri": f"sqlite:///file:{outside}?uri=true&mode=rwc",
        "memory": "sqlite://",
        "absent": f"sqlite:///{folder}/absent.db",
    }[layout]
    a_run(folder, url)
    (folder / "link.db").symlink_to(outside)
    before, names = outside.read_bytes(), sorted(tmp_path.rglob("*"))
    for verb in (["front", str(folder)], ["report", str(folder)], ["resume", str(folder)]):
        with refused(capsys, "sqlite"):
            assert main(verb) == 2
    left = set(tmp_path.rglob("*")) - set(names)
    assert outside.read_bytes() == before and not [p for p in left if p.suffix == ".db"]


def test_a_database_below_the_run_folder_is_read_and_not_changed(tmp_path, capsys):
    folder = tmp_path / "run"
    url = f"sqlite:///{folder}/study.db"
    a_run(folder, url)
    name = nas.load(folder).name
    session = make_session(folder, storage=url, run_name=name, trials=2, sampler="random")
    drive(session)
    before = (folder / "study.db").read_bytes()
    assert main(["front", str(folder)]) == 0
    assert len(nas.load(folder).trials()) == 2
    assert (folder / "study.db").read_bytes() == before
    # Where it lies once the folder has moved, the user says.
    moved = tmp_path / "moved"
    shutil.move(folder, moved)
    with refused(capsys, "--storage"):
        assert main(["front", str(moved)]) == 2
    assert main(["front", str(moved), "--storage", f"sqlite:///{moved}/study.db"]) == 0
    assert (moved / "study.db").read_bytes() == before


def test_a_database_without_a_study_stays_as_it_is(tmp_path, capsys):
    folder = a_run(tmp_path / "run", f"sqlite:///{tmp_path}/run/empty.db")
    (folder / "empty.db").touch()
    for url in ([], ["--storage", f"sqlite:///{folder}/empty.db"]):
        with refused(capsys, "holds no study"):
            assert main(["front", str(folder), *url]) == 2
    assert (folder / "empty.db").read_bytes() == b""
    sqlite_study(folder / "other.db")
    with refused(capsys, "holds no study"):
        assert main(["front", str(folder), "--storage", f"sqlite:///{folder}/other.db"]) == 2


def test_only_databases_that_studies_are_kept_in_are_opened(tmp_path):
    for url in ("mysql://me@h/d", "oracle://h/d", "sqlite+pysqlcipher:///x.db", "redis://h"):
        with pytest.raises(RuntimeError, match="postgresql"):
            StudyStore.load(tmp_path, url, "none", SPACE)


def test_storage_is_for_runs_that_have_one(tmp_path, capsys):
    a, b = (make_run(tmp_path / name, trials=2).folder for name in "ab")
    with refused(capsys, "its study is in its folder"):
        assert main(["front", str(a), "--storage", "sqlite:///x.db"]) == 2
    with refused(capsys, "its study is in its folder"):
        assert main(["compare", str(a), str(b), "--storage", "sqlite:///x.db"]) == 2


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.glob("study.db*")}


@pytest.mark.parametrize("state", ["closed", "killed", "open"])
def test_a_database_with_a_log_is_read_and_nothing_is_made_beside(state, tmp_path, capsys):
    folder = tmp_path / "run"
    url = f"sqlite:///{folder}/study.db"
    a_run(folder, url)
    name = nas.load(folder).name
    drive(make_session(folder, storage=url, run_name=name, trials=2, sampler="random"))
    writer = sqlite3.connect(folder / "study.db")
    writer.execute("pragma journal_mode=wal")
    writer.execute("create table mark (x)")
    writer.commit()
    copied = {path.name: path.read_bytes() for path in folder.glob("study.db*")}
    assert "study.db-wal" in copied
    if state != "open":
        writer.close()
    if state == "killed":
        (folder / "study.db").write_bytes(copied["study.db"])
        (folder / "study.db-wal").write_bytes(copied["study.db-wal"])
    before = files_of(folder)
    assert main(["front", str(folder)]) == 0
    assert len(nas.load(folder).trials()) == 2
    after = files_of(folder)
    if state == "open":
        # Readers of an open log have their marks in the file that all of them share.
        before.pop("study.db-shm"), after.pop("study.db-shm")
    assert after == before
    writer.close()


@pytest.mark.parametrize("ending", ["-wal", "-shm", "-journal"])
def test_links_beside_a_database_are_refused(ending, tmp_path, capsys):
    folder, victim = tmp_path / "run", tmp_path / "victim"
    a_run(folder, f"sqlite:///{folder}/study.db")
    database = sqlite3.connect(folder / "study.db")
    database.execute("pragma journal_mode=wal")
    database.close()
    (folder / f"study.db{ending}").symlink_to(victim)
    with refused(capsys, f"study.db{ending}", "must be no link"):
        assert main(["front", str(folder)]) == 2
    assert not victim.exists()
