"""Every parser of what others give us: a value, or one line that says what is wrong.

``make thorough`` gives each 60 documents. ``JOULENAS_FUZZ_EXAMPLES=2000 python -m pytest
tests/test_fuzz.py`` looks longer.
"""

import contextlib
import io
import json
import os
import random
import shutil

import pytest
import yaml
from fuzzed_files import OWN_TOKENIZER, TASK, write_artifact, write_predictor, write_run
from fuzzing import JUNK, bytes_of, mutated, text_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from record_fakes import DIGITS, made_record, true_j
from record_fakes import SPACE as RECORD_SPACE
from search_fakes import SPACE
from text_fakes import write_table

import nas
from nas.analysis.summary import summarise
from nas.cli.main import build_parser, main
from nas.cli.options.architecture_files import read_named
from nas.core.plain_yaml import read_yaml
from nas.exporting.artifact import load_artifact
from nas.tasks.registry import get_task
from nas.tasks.text.tokenize import read_tokenizer
from predictors.energy.artifact import load_predictor
from predictors.measurement.records import read_records
from search_spaces.space.presets import get_space
from search_spaces.space.sampling import smallest

EXAMPLES = int(os.environ.get("JOULENAS_FUZZ_EXAMPLES", "20"))
fuzzed = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# No shrinking of a seed makes a document simpler; all of them are equally likely.
seeds = st.integers(0, 2**32 - 1).map(random.Random)


def check(parse, *arguments):
    """``parse`` gives a value, or a ``ValueError`` (one of ours) with a message."""
    try:
        return parse(*arguments)
    except Exception as error:
        from nas.cli.main import is_bad_input

        assert is_bad_input(error) and str(error).strip(), repr(error)
        return None


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return write_artifact(tmp_path_factory.mktemp("artifact") / "a")


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return write_predictor(tmp_path_factory.mktemp("predictor") / "p.safetensors")


def written(path, content):
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    path.write_bytes(content)
    return path


SPACE_TEXT = yaml.safe_dump(SPACE.to_dict())


@fuzzed
@given(seeds)
def test_spaces(folder, rng):
    if rng.random() < 0.6:
        text = text_of(mutated(SPACE.to_dict(), rng), rng)
    else:
        text = bytes_of(SPACE_TEXT.encode(), rng)
    check(get_space, str(written(folder / "space.yaml", text)))


@fuzzed
@given(seeds, st.sampled_from([None, "text_classification", "images", "arrays", "speech"]))
def test_tasks(folder, rng, kind):
    (folder / "train.txt").write_text("good a fine film\nbad a dull film\n" * 2)
    data = mutated(TASK if kind is None else TASK | {"kind": kind}, rng)
    if rng.random() < 0.7:
        text = text_of(data, rng)
    else:
        text = bytes_of(yaml.safe_dump(TASK).encode(), rng)
    path = written(folder / "task.yaml", text)
    task = check(get_task, str(path))
    if task is not None:
        check(lambda: (task.workload(2), task.split("test")))


@fuzzed
@given(seeds)
def test_texts_of_a_task(folder, rng):
    pairs = [(f"w{i % 3} film", label) for i in range(9) for label in ("good", "bad")]
    ending = rng.choice(["txt", "csv", "tsv", "jsonl", "parquet"])
    path = write_table(folder / f"train.{ending}", pairs)
    written(path, bytes_of(path.read_bytes(), rng))
    named = dict.fromkeys(("train", "validation", "test"), path.name)
    written(folder / "task.yaml", json.dumps(TASK | named))
    task = get_task(str(folder / "task.yaml"))
    check(lambda: (task.workload(2), task.split("train")))


@fuzzed
@given(seeds)
def test_tokenizers_of_a_user(folder, rng):
    text = text_of(mutated(OWN_TOKENIZER, rng), rng)
    path = written(folder / "tokenizer.json", text)

    def read_and_cut():
        encoder = read_tokenizer(path, 4)
        tokens = encoder.encode(["a fine film", "", "\x00 [CLS] é"])
        assert tokens.shape == (3, 4) and tokens.min() >= 0 and tokens.max() < encoder.vocab_size

    check(read_and_cut)


RECORD = made_record(
    smallest(RECORD_SPACE), DIGITS, true_j(smallest(RECORD_SPACE)), session="s", order=1
).to_dict()


@fuzzed
@given(seeds)
def test_measurement_records(folder, rng):
    good = json.dumps(RECORD)
    if rng.random() < 0.7:
        lines = [good, text_of(mutated(RECORD, rng), rng), good]
        text = "\n".join(lines).encode("utf-8", "surrogatepass")
    else:
        text = bytes_of((good + "\n" + good).encode(), rng)
    path = written(folder / "records.jsonl", text)
    check(read_records, path)
    check(read_named, path)


@fuzzed
@given(seeds)
def test_architectures(folder, rng):
    architecture = smallest(SPACE).to_dict()
    given_data = rng.choice([architecture, [architecture], {"architecture": architecture}])
    if rng.random() < 0.7:
        text = text_of(mutated(given_data, rng), rng)
    else:
        text = bytes_of(json.dumps(given_data).encode(), rng)
    name = rng.choice(["a.json", "a.jsonl"])
    check(read_named, written(folder / name, text))


@fuzzed
@given(seeds, st.sampled_from(["architecture.json", "workload.json", "model.safetensors"]))
def test_artifacts(artifact, folder, rng, name):
    copy = folder / "artifact"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(artifact, copy)
    content = (copy / name).read_bytes()
    if name.endswith(".json") and rng.random() < 0.7:
        written(copy / name, text_of(mutated(json.loads(content), rng), rng))
    else:
        written(copy / name, bytes_of(content, rng))
    check(load_artifact, copy)


RUN_FILES = (
    "run.json",
    "records.jsonl",
    "ended.json",
    "finalists.json",
    "device.jsonl",
    "trials/0/replica-1/result.json",
    "teacher/teacher.json",
    "supernet/supernet.json",
)


@fuzzed
@given(seeds, st.sampled_from(RUN_FILES))
def test_run_folders(whole_run, folder, rng, name):
    copy = folder / "run"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(whole_run, copy)
    content = (copy / name).read_bytes()
    if rng.random() < 0.3:
        written(copy / name, bytes_of(content, rng))
    elif name.endswith(".json"):
        written(copy / name, text_of(mutated(json.loads(content), rng), rng))
    else:
        lines = content.decode().splitlines()
        at = rng.randrange(len(lines))
        lines[at] = text_of(mutated(json.loads(lines[at]), rng), rng)
        written(copy / name, "\n".join(lines) + "\n")

    def read():
        run = nas.load(copy)
        run.finalists()
        run.teacher()
        run.supernet()
        return run.front(), summarise(run)

    check(read)


@fuzzed
@given(seeds)
def test_predictors(predictor, folder, rng):
    content = predictor.read_bytes()
    size = int.from_bytes(content[:8], "little")
    head, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    if rng.random() < 0.7:
        inner = json.loads(head["__metadata__"]["joulenas_predictor"])
        if rng.random() < 0.8:
            head["__metadata__"]["joulenas_predictor"] = text_of(mutated(inner, rng), rng)
        else:
            head = mutated(head, rng)
        text = json.dumps(head).encode()
        content = len(text).to_bytes(8, "little") + text + body
    else:
        content = bytes_of(content, rng)
    saved = check(load_predictor, written(folder / "p.safetensors", content))
    if saved is not None:
        check(saved.predictor.predict, [smallest(SPACE)], DIGITS)


OPTIONS = {
    name: {action for action in sub._actions if action.dest not in ("help", "debug")}
    for name, sub in build_parser()._subparsers._group_actions[0].choices.items()
    if name not in ("predictor", "doctor")
}
# What may stand where a verb wants its positional words.
RUNS = {"compare": 2, "explain": 1, "plot": 1, "front": 1, "resume": 1, "export": 1}


WORDS = [str(word).replace("\x00", "0").encode("utf-8", "replace").decode() for word in JUNK]
WORDS = [word for word in WORDS if word != "/dev/zero"]
WORDS += ["2mJ", "0.5,1", "3", "all", "progress", "architecture", "x.png", "cpu"]


@pytest.fixture
def no_work(monkeypatch):
    """Verbs that would search, export or measure stop where they would begin to."""
    from search_fakes import report

    from nas.exporting import export
    from nas.searching import study
    from search_spaces.compression import probing

    def stop(*_, **__):
        raise ValueError("stopped here")

    monkeypatch.setattr(study, "_run_search", stop)
    monkeypatch.setattr(export, "export", stop)
    for name in ("_measure_items", "_compare", "_active"):
        monkeypatch.setattr(f"nas.cli.commands.measure.{name}", stop)
    monkeypatch.setattr(probing, "probe", lambda device, **_: report(fp32="real"))


@fuzzed
@given(seeds, st.sampled_from(sorted(OPTIONS)))
def test_command_lines(whole_run, folder, no_work, monkeypatch, rng, verb):
    monkeypatch.chdir(folder)
    words = [verb]
    if verb == "search":
        words += rng.choice([["quickstart", "--device", "cpu"], ["quickstart"], [], ["nope"]])
    elif verb == "measure":
        words += rng.choice([[], ["nope.json"], ["--space", "digits-tiny"], [str(folder)]])
    for _ in range(RUNS.get(verb, 0)):
        words.append(str(whole_run) if rng.random() < 0.8 else rng.choice(["", "nope", "/", "."]))
    if verb == "explain":
        words.append(rng.choice(["0", "1", "-1", "99", "x", ""]))
    actions = sorted((a for a in OPTIONS[verb] if a.option_strings), key=lambda a: a.dest)
    for action in rng.sample(actions, min(len(actions), rng.randint(1, 3))):
        words.append(action.option_strings[-1])
        if action.nargs != 0:
            words.append(rng.choice(WORDS))
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
    assert code in (0, 2), (words, said.getvalue())
    assert "Traceback" not in said.getvalue()


def test_a_bomb_of_aliases_is_refused(folder):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    text = "\n".join([*lines, "name: *a11"])
    for parse in (get_space, get_task):
        path = written(folder / "bomb.yaml", text)
        with pytest.raises(ValueError, match="alias") as error:
            parse(str(path))
        assert len(str(error.value)) < 300


@pytest.mark.parametrize("name", ["/dev/zero", "pipe"])
def test_what_has_no_end_is_not_read(folder, name):
    if not (folder / "pipe").exists():
        os.mkfifo(folder / "pipe")
    task = written(folder / "task.yaml", json.dumps(TASK | {"train": name}))
    with pytest.raises(ValueError, match="train must be a file or folder"):
        get_task(str(task))
    link = folder / "link"
    link.unlink(missing_ok=True)
    link.symlink_to(folder / name)
    for read in (read_named, read_records, load_predictor, lambda p: read_yaml(p, max_bytes=9)):
        with pytest.raises(ValueError, match="must be"):
            read(link)
