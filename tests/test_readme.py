"""What the README shows is true: its commands parse, its Python runs, its files exist."""

import itertools
import json
import re
import shlex

import pytest
import yaml
from media_fakes import write_pictures, write_tones
from pages import PAGES, ROOT, blocks, lines_of, name_of, output_of
from text_fakes import tale

from experiments.recipes import images, language_modelling, speech, translation
from nas.cli.main import build_parser
from nas.searching.study import check_fits
from nas.tasks.registry import get_task
from search_spaces.space import SearchSpace
from search_spaces.workload import PHASES


def commands():
    for page in PAGES:
        yield from (line for line in lines_of(page) if line.startswith("nas "))


def test_there_are_commands_to_check():
    assert len(list(commands())) >= 6


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_every_nas_command_is_one_that_the_parser_takes(line):
    # What a shell does with the output is no word of ours.
    words = itertools.takewhile(lambda word: word not in ("|", ">"), shlex.split(line)[1:])
    build_parser().parse_args(list(words))


def test_the_readme_is_short_and_leads_to_the_rest():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 200 and "<!-- results" not in text
    pages = ("tutorial", "data", "spaces", "front", "export", "cluster", "figures", "command-line")
    for page in pages:
        assert f"](docs/{page}.md" in text, page


def ray_commands():
    for block in blocks(ROOT / "docs" / "cluster.md", "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("ray "):
                yield line


@pytest.mark.parametrize("line", sorted(set(ray_commands())))
def test_every_ray_command_is_one_that_ray_takes(line):
    import click
    from ray.scripts.scripts import cli

    command, words = cli, shlex.split(line)[1:]
    while isinstance(command, click.Group):
        command, words = command.commands[words[0]], words[1:]
    command.make_context("ray", words)


def test_the_readme_states_the_kept_time_of_the_quickstart():
    readme = (ROOT / "README.md").read_text()
    (name,) = re.findall(r"five minutes on\s+two cores \(`(quickstart-time_\S+\.json)`\)", readme)
    kept = json.loads((ROOT / "experiments" / "results" / name).read_text())
    first = kept["tables"][0]["rows"][0]
    assert round(first["wall_s"] / 60) == 5


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"^make ([a-z]+)", "\n".join(blocks(page, "bash")), re.MULTILINE):
            assert f"\n{target}:" in makefile


def trees():
    """Each list of paths with what they are, by page."""
    for page in PAGES:
        for text in blocks(page, "text"):
            paths = [line.split()[0] for line in text.splitlines() if line.strip()]
            is_long = len(paths) > 1
            if is_long and all("/" in path or (ROOT / path).exists() for path in paths):
                yield page, paths


def test_every_path_in_a_tree_exists():
    assert "CONTRIBUTING.md" in [name_of(page) for page, _ in trees()]
    for page, paths in trees():
        assert len(paths) > 10 and len(paths) == len(set(paths)), page
        for path in paths:
            assert (ROOT / path).exists(), path


def test_a_tree_of_folders_leaves_none_out():
    there = {
        f"{init.parent.relative_to(ROOT)}/"
        for package in ("search_spaces", "predictors", "nas", "experiments")
        for pattern in ("__init__.py", "*/__init__.py")
        for init in (ROOT / package).glob(pattern)
    }
    assert len(there) > 15
    for page, paths in trees():
        if all(path.endswith("/") for path in paths):
            assert there <= set(paths), f"{name_of(page)} lacks {there - set(paths)}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_inside_the_project_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.thorough
@pytest.mark.e2e
def test_the_python_example_runs_as_written(tmp_path):
    (example,) = blocks(ROOT / "README.md", "python")
    printed = output_of(example, tmp_path, timeout=280)
    assert "d64 L3" in printed or "d16" in printed
    assert (tmp_path / "model" / "card.json").is_file()


def test_the_sampler_example_runs_as_written(tmp_path):
    example, _ = blocks(ROOT / "docs" / "search.md", "python")
    printed = output_of(example + "print(len(study.best_trials))\n", tmp_path, timeout=120)
    assert int(printed) > 2


def test_the_example_of_a_canonical_form_proposes_one_of_each_equivalent(tmp_path):
    _, example = blocks(ROOT / "docs" / "search.md", "python")
    forms = "{tuple(w for w in t.params.values() if w) for t in study.trials}"
    printed = output_of(example + f"print(len({forms}))\n", tmp_path, timeout=120)
    assert int(printed) == 20


def test_the_space_in_the_readme_is_one():
    _, text = blocks(ROOT / "README.md", "yaml")
    space = SearchSpace.from_dict(yaml.safe_load(text))
    assert space.size() > 1000


def test_the_task_in_the_readme_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text, _ = blocks(ROOT / "README.md", "yaml")
    (tmp_path / "sentiment.yaml").write_text(text)
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.txt").write_text("good a fine film\nbad a dull film\n")
    task = get_task(str(tmp_path / "sentiment.yaml"))
    assert task.workload(1).input_shape == (40,) and len(task.split("test")) == 2


def test_the_image_example_runs_as_written(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (example,) = blocks(ROOT / "docs" / "images.md", "python")
    whole, shrunk = output_of(example, tmp_path, timeout=120).splitlines()
    shares = [float(line.split(", ")[-1].split("%")[0]) for line in (whole, shrunk)]
    assert "@4" in shrunk and min(shares) > 60


def test_the_tasks_and_the_space_for_images_are_such(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pictures, space, _, recordings = blocks(ROOT / "docs" / "images.md", "yaml")
    assert SearchSpace.from_dict(yaml.safe_load(space)).size() > 100
    (tmp_path / "p.yaml").write_text(pictures)
    write_pictures(tmp_path / "flowers", 12)
    workload = get_task(str(tmp_path / "p.yaml")).workload(1)
    assert workload.input_shape == (3, 32, 32)
    check_fits(images("cpu").space, workload)
    (tmp_path / "r.yaml").write_text(recordings)
    # Of these ten speakers each split has one.
    write_tones(tmp_path / "recordings", 10, n_speakers=10)
    workload = get_task(str(tmp_path / "r.yaml")).workload(1)
    assert workload.input_shape == (1, 40, 100)
    check_fits(speech("cpu").space, workload)


def test_the_example_of_language_modelling_runs_as_written(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (example,) = blocks(ROOT / "docs" / "language-modelling.md", "python")
    prefill, generate, found = output_of(example, tmp_path, timeout=120).splitlines()
    weights = [
        int(re.search(r"([\d,]+) bytes of weights", line).group(1).replace(",", ""))
        for line in (prefill, generate)
    ]
    assert "tale@32/prefill/b8" in prefill and "a generated token" in generate
    # A context of 32 tokens shares what a token alone reads.
    assert weights[1] == pytest.approx(32 * weights[0], rel=0.05)
    # Who comes is drawn out of three: 1.6 bits a line of some 25 bytes. The rest can be learnt.
    assert float(found.split()[0]) < 0.6


def test_the_task_and_the_space_for_language_modelling_are_such(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text, space = blocks(ROOT / "docs" / "language-modelling.md", "yaml")
    (tmp_path / "plays.yaml").write_text(text)
    (tmp_path / "plays.txt").write_text(tale(4000))
    workload = get_task(str(tmp_path / "plays.yaml")).workload(32)
    assert workload.key == "plays@64/generate/b32" and workload.unit == "generated token"
    for made in (SearchSpace.from_dict(yaml.safe_load(space)), language_modelling("cpu").space):
        for phase in (None, *PHASES):
            check_fits(made, workload.with_phase(phase))
        assert made.size() > 1000


def test_the_translation_example_runs_as_written(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    example, _ = blocks(ROOT / "docs" / "translation.md", "python")
    deep, shallow = output_of(example, tmp_path, timeout=120).splitlines()
    assert "d32 L1" in deep and "d32 L2 h2/2 ff64 + d32 L1" in shallow
    # Layers of a decoder are launched anew for each token.
    launches = [int(line.split(", ")[1].split()[0]) for line in (deep, shallow)]
    scores = [float(line.split(": ")[1].split()[0]) for line in (deep, shallow)]
    assert launches[0] > 1.5 * launches[1] and min(scores) > 70


def test_the_task_and_the_space_for_translation_are_such(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text, space = blocks(ROOT / "docs" / "translation.md", "yaml")
    (tmp_path / "captions.yaml").write_text(text)
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.en").write_text("a red dog\nan old cat\n")
        (tmp_path / f"{name}.de").write_text("ein roter Hund\neine alte Katze\n")
    workload = get_task(str(tmp_path / "captions.yaml")).workload(1)
    assert workload.unit == "output token" and workload.n_units == 40
    for made in (SearchSpace.from_dict(yaml.safe_load(space)), translation("cpu").space):
        check_fits(made, workload)
        assert made.size() > 10_000
