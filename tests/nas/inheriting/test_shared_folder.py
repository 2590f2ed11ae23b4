"""Files that each machine fetches once from an object store, by their digests."""

import os
import threading
import time

import pytest
from s3_fakes import CREDENTIALS, s3_server, url

from nas.core.files import place_at, write_text
from nas.core.remote import RemotePath
from nas.inheriting.shared_folder import SharedFolder, digests_of


@pytest.fixture(scope="module")
def s3():
    with s3_server() as port:
        yield port


@pytest.fixture
def shared(s3, tmp_path, monkeypatch):
    """Two files in a store, an empty cache, and the names of what is fetched."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = place_at(url(s3)) / tmp_path.name
    for name in ("task.yaml", "model.safetensors"):
        write_text(place / name, f"content of {name}")
    fetched, copy = [], RemotePath.copy_to

    def copy_to(self, local):
        fetched.append(self.name)
        time.sleep(0.05)
        copy(self, local)

    found = SharedFolder(place, digests_of(place / n for n in ("task.yaml", "model.safetensors")))
    monkeypatch.setattr(RemotePath, "copy_to", copy_to)
    return found, fetched


def test_each_file_is_fetched_once_by_whoever_comes_first(shared):
    folder, fetched = shared
    small = folder.here(lambda name: name.endswith(".yaml"))
    assert fetched == ["task.yaml"] and not (small / "model.safetensors").exists()
    threads = [threading.Thread(target=folder.here) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(fetched) == ["model.safetensors", "task.yaml"]
    assert folder.here() == small
    assert (small / "model.safetensors").read_text() == "content of model.safetensors"


def test_a_file_that_is_not_the_one_of_the_digest_is_refused_and_not_kept(shared):
    folder, _ = shared
    write_text(folder.place / "model.safetensors", "of another run")
    with pytest.raises(ValueError, match=r"model.safetensors must be the file that the run began"):
        folder.here()
    write_text(folder.place / "model.safetensors", "content of model.safetensors")
    assert (folder.here() / "model.safetensors").read_text() == "content of model.safetensors"


def test_copies_that_no_search_uses_are_removed(shared):
    folder, _ = shared
    here = folder.here()
    old = here.parent / ("0" * 64)
    old.mkdir()
    os.utime(old, (0, 0))
    folder.here()
    assert here.is_dir() and not old.exists()


def test_a_folder_that_all_nodes_see_is_read_where_it_is(tmp_path):
    (tmp_path / "a").write_text("a")
    assert SharedFolder(tmp_path, digests_of([tmp_path / "a"])).here() == tmp_path
