"""Searches whose candidates stock classes of transformers can load, from the start."""

from dataclasses import replace

import pytest
import yaml
from loadable_fakes import loadable, mixed
from record_fakes import made_record, true_j
from search_fakes import WORKLOAD, drive, make_session, report
from style_fakes import LM, SEGMENT

import nas
from nas.cli.main import build_parser, main
from nas.cli.options.search_config import config_of
from nas.exporting.formats import stock, stock_worker
from nas.records.config import SAMPLERS, SearchConfig
from nas.searching import in_process, installed
from nas.searching.fitting import check_fits, for_classes
from nas.store import new_run, run_file
from nas.store.driver import Driver
from nas.training.config import TrainingConfig
from search_spaces.compression import probing
from search_spaces.pretrained.writing.stock import stock_refusals
from search_spaces.space import SearchSpace

VIT = loadable(WORKLOAD, "vit")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_proposes_what_a_class_supports(sampler, tmp_path):
    session = drive(make_session(tmp_path, space=VIT, sampler=sampler, trials=16, seed=3))
    trials = session.records()
    assert len(trials) >= 16
    assert len({trial.architecture.hash for trial in trials}) == len(trials)
    assert not any(stock_refusals(trial.architecture, WORKLOAD) for trial in trials)


def test_without_it_the_same_genes_give_others(tmp_path):
    session = drive(make_session(tmp_path, space=mixed(WORKLOAD, "vit"), trials=9, seed=3))
    assert any(stock_refusals(trial.architecture, WORKLOAD) for trial in session.records())


def test_a_space_is_narrowed_to_the_blocks_of_the_task():
    space = mixed(LM, "default", "bert", "llama", loadable="transformers", n_kv_heads=[1, 2, 4])
    narrowed = for_classes(space, LM)
    assert narrowed.values("blocks") == ("llama",) and narrowed.loadable == "transformers"
    assert for_classes(narrowed, LM) == narrowed
    check_fits(narrowed, LM)
    with pytest.raises(ValueError, match=r"blocks of space mixed.*must be \['llama'\]"):
        check_fits(replace(space, domains=space.domains | {"blocks": ("default", "llama")}), LM)
    plain = mixed(LM, "default")
    assert for_classes(plain, LM) is plain


@pytest.mark.parametrize(
    ("workload", "blocks", "words"),
    [
        (LM, "default", "blocks must offer one of gpt2, llama, qwen2, qwen3, got default"),
        (WORKLOAD, "bert", "blocks must offer one of vit, got bert"),
        (SEGMENT, "vit", "on task segment, which is image segmentation of 8x8 pixels: there is n"),
    ],
)
def test_a_space_without_a_member_is_refused_in_one_line(workload, blocks, words):
    with pytest.raises(ValueError) as error:
        for_classes(mixed(workload, blocks, loadable="transformers"), workload)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_resolutions_that_shrink_images_are_left_out():
    space = mixed(WORKLOAD, "vit", resolution=[4, None], patch_size=[2], loadable="transformers")
    assert for_classes(space, WORKLOAD).values("resolution") == (None,)
    only = mixed(WORKLOAD, "vit", resolution=[4], patch_size=[2], loadable="transformers")
    with pytest.raises(ValueError, match="which has loadable, must offer null"):
        for_classes(only, WORKLOAD)


@pytest.fixture
def space_file(tmp_path):
    """A file of a mixed space, of precisions that every device has."""
    genes = mixed(WORKLOAD, "default", "vit").to_dict()
    genes |= {"attention_precision": ["fp32"], "ffn_precision": ["fp32"]}
    path = tmp_path / "mixed.yaml"
    path.write_text(yaml.safe_dump(genes))
    return path


@pytest.fixture
def probed(monkeypatch):
    """What the device's probe finds, without the seconds that it takes."""
    made = report(fp32="real", bf16="real")
    monkeypatch.setattr(probing, "probe", lambda device, **rest: made)


def configured(*words):
    arguments = build_parser().parse_args(["search", "--device", "cpu", *map(str, words)])
    arguments.resume = False
    return config_of(arguments)


def test_the_option_is_the_key_of_a_space(space_file, tmp_path, probed):
    words = ("--task", "digits", "--trials", 3, "--space")
    by_option = configured(*words, space_file, "--loadable").space
    written = tmp_path / "loadable.yaml"
    written.write_text(space_file.read_text() + "loadable: transformers\n")
    assert by_option == configured(*words, written).space
    assert by_option == configured("quickstart", "--space", space_file, "--loadable").space
    assert by_option.values("blocks") == ("vit",) and by_option.loadable == "transformers"


def test_a_recipe_without_a_loadable_member_is_one_line(tmp_path, capsys):
    words = ["search", "quickstart", "--loadable", "--device", "cpu", "--run", tmp_path / "run"]
    assert main(list(map(str, words))) == 2
    error = capsys.readouterr().err.strip()
    assert error.endswith("blocks must offer one of vit, got default") and "\n" not in error
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_with_its_own_space_only(tmp_path):
    config = SearchConfig(task="digits", space=VIT, trials=2)
    new_run.create(tmp_path / "run", config, "fake")
    run = run_file.load(tmp_path / "run")
    assert run.config.space == VIT
    other = replace(config, space=replace(VIT, loadable=None))
    with pytest.raises(ValueError, match="space"):
        run_file.resumed(run, other, Driver())
    assert run_file.resumed(run, config, Driver()).config.space == VIT


@pytest.fixture
def in_this_process(monkeypatch):
    """Verify and measure without fresh processes, which take longer than all else here."""
    pytest.importorskip("transformers")

    def made(architecture, workload, **_):
        return made_record(architecture, workload, true_j(architecture, workload))

    (name,) = (each for each in vars(in_process) if each.startswith("measure_"))
    monkeypatch.setattr(in_process, name, made)
    monkeypatch.setattr(stock, "run", stock_worker.do)


def test_a_search_begins_with_a_check_of_the_installed_version(
    tmp_path, monkeypatch, in_this_process
):
    small = {"d_model": [16], "depth": [1], "patch_size": [4], "n_heads": [1, 2]}
    space = SearchSpace.from_dict(VIT.to_dict() | small)
    config = SearchConfig(
        task="digits",
        space=space,
        trials=2,
        training=TrainingConfig(epochs=1),
        meter="estimate",
        protocol="quick",
    )
    verified = []
    verify = installed.verify_written
    monkeypatch.setattr(installed, "verify_written", lambda *a: verified.append(verify(*a)))
    nas.search(config, tmp_path / "run", workers=0)
    assert [each.stock_class for each in verified] == ["ViTForImageClassification"]
    nas.resume(tmp_path / "run", trials=3)
    assert len(verified) == 1
    run = nas.load(tmp_path / "run")
    assert len(run.trials()) == 3
    assert all(member.loadable for member in run.front())

    def differs(job):
        return stock_worker.findings(job) | {"output_difference": 1.0}

    monkeypatch.setattr(stock, "run", differs)
    monkeypatch.setattr(installed, "verify_written", verify)
    with pytest.raises(ValueError, match="loadable must be left out for blocks vit with the inst"):
        nas.search(config, tmp_path / "other", workers=0)
    assert not (tmp_path / "other").exists()
