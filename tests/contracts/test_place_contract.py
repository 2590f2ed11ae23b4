"""Every kind of place for a run's files: a folder, one named by a URL, an object store."""

import pickle
import socket
import threading
import time

import numpy as np
import pytest
import torch
from s3_fakes import CREDENTIALS, refusing_server, s3_server, url
from torch import nn

from nas.core.files import (
    as_local,
    check_writable,
    copy_file,
    is_place,
    place_at,
    read_json,
    size_of,
    write_atomic,
    write_json,
)
from nas.core.remote import RemoteError, RemotePath
from nas.core.retry import patience
from nas.training.checkpoint import CheckpointManager, TrainingState
from nas.training.weights import load_weights, save_weights


@pytest.fixture(scope="module")
def s3():
    with s3_server() as port:
        yield port


@pytest.fixture(params=["folder", "file URL", "s3"])
def place(request, tmp_path, monkeypatch):
    """An empty place of each kind."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    if request.param == "folder":
        found = place_at(str(tmp_path))
    elif request.param == "file URL":
        found = place_at(f"file://{tmp_path}")
    else:
        found = place_at(url(request.getfixturevalue("s3"))) / tmp_path.name
    found.mkdir(parents=True, exist_ok=True)
    return found


def test_what_is_written_is_read_and_replaced_whole(place):
    path = place / "record ü.json"
    assert not path.is_file()
    with pytest.raises(ValueError, match="must exist"):
        read_json(path)
    for value in ({"a": 1}, {"b": [1.5, None]}):
        write_json(path, value)
        assert path.is_file() and read_json(path) == value
        assert size_of(path) == len(path.read_bytes())
    assert [p.name for p in place.glob("*")] == ["record ü.json"]
    path.unlink()
    assert not path.is_file() and not list(place.glob("*"))
    path.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        path.unlink()
    check_writable(place / "new")
    assert not list((place / "new").glob("*"))


def test_what_fails_half_way_leaves_what_was_there(place):
    path = place / "record.json"
    write_json(path, 1)

    def fail(temporary):
        temporary.write_bytes(b"half")
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        write_atomic(path, fail)
    assert read_json(path) == 1 and [p.name for p in place.glob("*")] == ["record.json"]


def test_files_of_several_parts_and_none_come_back_to_the_byte(place, tmp_path):
    # S3 takes more than 10 MB in parts.
    for n_bytes in (0, 1, 23_000_001):
        content = np.random.default_rng(0).bytes(n_bytes)
        write_atomic(place / "big", lambda temporary, c=content: temporary.write_bytes(c))
        assert size_of(place / "big") == n_bytes
        with as_local(place / "big") as local:
            assert local.name == "big" and local.read_bytes() == content
        copy_file(place / "big", tmp_path / "here")
        copy_file(tmp_path / "here", place / "again")
        assert (place / "again").read_bytes() == content


def test_what_lies_below_is_listed_by_name(place):
    for name in ("1", "replica-2", "replica-10"):
        (place / "trials" / name).mkdir(parents=True, exist_ok=True)
        write_json(place / "trials" / name / "result.json", name)
    found = place / "trials"
    assert sorted(p.name for p in found.glob("replica-*")) == ["replica-10", "replica-2"]
    assert {read_json(p / "result.json") for p in found.glob("*")} == {
        "1",
        "replica-2",
        "replica-10",
    }
    assert list((place / "nothing").glob("*")) == []


def test_a_place_means_the_same_in_another_process(place):
    there = pickle.loads(pickle.dumps(place / "here"))
    write_json(place / "here", 1)
    assert there == place / "here" and hash(there) == hash(place / "here")
    assert read_json(there) == 1 and str(there).endswith("/here") and there.name == "here"


def test_weights_and_training_states_are_kept_and_read(place):
    def linear(seed):
        torch.manual_seed(seed)
        return nn.Linear(3, 2)

    model, other = linear(0), linear(1)
    save_weights(model, place / "7" / "model.safetensors")
    load_weights(other, place / "7" / "model.safetensors")
    assert torch.equal(model.weight, other.weight)
    with pytest.raises(ValueError, match="must exist"):
        load_weights(other, place / "8" / "model.safetensors")
    write_json(place / "7" / "model.safetensors", "none")
    with pytest.raises(ValueError, match=r"7/model.safetensors must fit"):
        load_weights(other, place / "7" / "model.safetensors")

    def state(model):
        return TrainingState(
            {"m": model}, torch.optim.AdamW(model.parameters()), torch.Generator()
        )

    checkpoints = CheckpointManager(place / "7" / "loop.safetensors", {3})
    assert checkpoints.load(state(other)) == 0
    checkpoints.save(3, state(model))
    fresh = linear(2)
    assert CheckpointManager(place / "7" / "loop.safetensors").load(state(fresh)) == 3
    assert torch.equal(fresh.weight, model.weight)
    # Cut off, it is none.
    content = (place / "7" / "loop.safetensors").read_bytes()
    write_atomic(place / "7" / "loop.safetensors", lambda t: t.write_bytes(content[:-4]))
    assert checkpoints.load(state(fresh)) == 0


def test_a_slow_place_takes_a_twentieth_of_the_time_at_most(tmp_path, monkeypatch):
    now, writes = [0.0], []
    monkeypatch.setattr("nas.training.checkpoint.time.perf_counter", lambda: now[0])

    def slow(path, write):
        writes.append(now[0])
        now[0] += 3.0

    monkeypatch.setattr("nas.training.checkpoint.write_atomic", slow)
    model = nn.Linear(2, 2)
    state = TrainingState({"m": model}, torch.optim.AdamW(model.parameters()), torch.Generator())
    checkpoints = CheckpointManager(tmp_path / "loop", {150}, interval_s=2.0)
    for epoch in range(1, 201):
        now[0] += 1.0
        checkpoints.save(epoch, state)
    # The second after its start, then each 60; one that must be kept is kept.
    assert writes == [2.0, 65.0, 128.0, 159.0]


def test_a_store_that_is_away_is_waited_for_and_one_that_refuses_is_not(monkeypatch):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = place_at(url(port)) / "record.json"
    told, done = [], threading.Event()

    def come_back():
        # Longer than the store's own client tries.
        time.sleep(8.0)
        with s3_server(port):
            done.wait(30.0)

    server = threading.Thread(target=come_back)
    server.start()
    try:
        with patience(told.append, wait_s=30.0):
            write_json(path, 1)
            assert read_json(path) == 1
    finally:
        done.set()
        server.join()
    assert len(told) == 1 and "trying again for" in told[0] and "connect" in told[0]


@pytest.mark.parametrize(("code", "status"), [("AccessDenied", 403), ("NoSuchBucket", 404)])
def test_a_refusal_is_one_line_without_secrets(monkeypatch, code, status):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with refusing_server(code, status) as server:
        path = place_at(url(server.server_port)) / "record.json"
        with patience(wait_s=60.0), pytest.raises(RemoteError) as caught:
            write_json(path, 1)
        assert server.asked < 5
    text = str(caught.value)
    assert text.startswith("storage s3://bucket refuses") and "\n" not in text
    assert "testing" not in text and "record.json" not in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://KEY:SECRET@bucket/runs", "no credentials"),
        ("s3://bucket/runs?access_key=KEY&secret_key=SECRET", "no query but"),
        ("s3://bucket/runs?endpoint_override=http://KEY:SECRET@host", "no credentials"),
        ("s3://bucket/runs?endpoint_override=http%3A%2F%2FKEY%3ASECRET%40host", "no credentials"),
        ("gs://bucket/runs?token=SECRET", "no query but"),
        ("s3://bucket/runs?SECRET", "must be a URL such as"),
        ("s3:///runs", "must name a bucket"),
        ("s3://bucket:80/runs", "must name a bucket"),
        ("s3://bucket/runs/../other", "plain one"),
        ("s3://bucket/runs#part", "no #"),
        ("file://host/runs", "of this machine"),
        ("file:runs", "/a/folder"),
        ("runs", "/a/folder"),
        ("hdfs://host/runs", "/a/folder"),
        ("", "/a/folder"),
    ],
)
def test_what_is_no_place_or_holds_a_credential_is_refused(text, said):
    with pytest.raises(ValueError, match=said) as caught:
        place_at(text)
    assert "SECRET" not in str(caught.value) and "\n" not in str(caught.value)


def test_which_texts_name_places():
    assert all(map(is_place, ("s3://b/p", "gs://b", "file:///p", "/p", "./p", "../p", "~/p", ".")))
    assert not any(map(is_place, ("postgresql://h/d", "sqlite:///x.db", "bogus", "runs", "")))


def test_paths_in_a_store_read_as_urls():
    path = place_at("s3://bucket/a%20b//c/?region=eu-west-1")
    assert path == RemotePath("s3", "bucket", "a b/c", "region=eu-west-1")
    assert str(path / "d") == "s3://bucket/a b/c/d" and (path / "d").parent == path
    assert path.resolve() is path
    for name in ("..", ".", "", "a/b", "a\nb"):
        with pytest.raises(ValueError, match="plain one"):
            path / name
