"""The contract of every export format. A format joins in ``FORMATS``."""

import json
import shutil
from dataclasses import replace

import pytest
from export_fakes import conditions, made_artifact, name_tasks
from safetensors.torch import load_file, save_file

from nas.exporting.formats.base import ExportError
from nas.exporting.formats.registry import FORMATS
from nas.exporting.verify import judge, reload_formats
from nas.tasks.base.artifact_files import CHECK
from nas.training.weights import read_description
from search_spaces import plugins
from search_spaces.architecture import (
    STYLES,
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)

BF16, SPARSE = Compression("bf16"), Compression("fp32", "2:4")


def vision():
    """Low rank, grouped queries, more tokens than torch's compiler fuses; two kinds of layers."""
    layers = (
        LayerSpec(AttentionSpec(4, 2, 8, 8), FfnSpec(48, 8)),
        LayerSpec(AttentionSpec(2, 1, 16), FfnSpec(64)),
    )
    return "digits", Architecture(32, layers, 2)


def mixed():
    """Few tokens of shrunk images; bf16 attention in an fp32 stream, zeros of a 2:4 mask."""
    layer = LayerSpec(AttentionSpec(2, 2, 16, None, BF16), FfnSpec(32, None, SPARSE))
    return "digits", Architecture(32, (layer, layer), 2, 4)


def encoder():
    """Texts of several lengths: padding is neither attended to nor pooled."""
    layer = LayerSpec(AttentionSpec(4, 1, 8), FfnSpec(48))
    return "padded-words", Architecture(32, (layer,))


def decoder():
    """Causal, all of it in bf16, with grouped queries and low rank."""
    layer = LayerSpec(AttentionSpec(2, 1, 16, 4, BF16), FfnSpec(64, 8, BF16))
    return "next-words", Architecture(32, (layer, layer))


def vit():
    """A class token, and its vector alone for the head."""
    layer = LayerSpec(AttentionSpec(2, 2, 16), FfnSpec(48))
    return "digits", Architecture(32, (layer, layer), 2, style=STYLES["vit"])


def bert():
    """Norms after the sums and after embeddings, token types, a pooler; padded texts."""
    layer = LayerSpec(AttentionSpec(4, 4, 8), FfnSpec(48))
    return "padded-words", Architecture(32, (layer,), style=STYLES["bert"])


def qwen3():
    """Rotary positions, norms of heads whose size is not a share of the width, a tied head."""
    layer = LayerSpec(AttentionSpec(4, 2, 12), FfnSpec(48))
    return "next-words", Architecture(32, (layer, layer), style=STYLES["qwen3"])


def sentences():
    """Vectors of unit length, from the mean over tokens; no head."""
    layer = LayerSpec(AttentionSpec(4, 4, 8), FfnSpec(48))
    style = replace(STYLES["bert"], pooling="mean", has_unit_vectors=True)
    return "word-vectors", Architecture(32, (layer,), style=style)


LONG = [pytest.param(each, marks=pytest.mark.thorough) for each in (mixed, encoder, vit, qwen3)]
NETWORKS = [vision, decoder, bert, sentences, *LONG]
# Networks that a stock class computes, which one form alone requires.
STOCK, OF_STOCK = {"vit", "bert", "qwen3", "sentences"}, "huggingface"


# Forms whose converters take ten seconds and more, and a network that only long tests export.
SLOW, IN_EVERY_FORM = ("litert", "executorch"), "mixed"


def is_tried(form, network):
    """Whether a form is installed, and not too slow for a test of this network."""
    is_slow = form.name.startswith(SLOW)
    return form.missing() is None and (network == IN_EVERY_FORM or not is_slow)


class Exported:
    """An artifact, its forms, and what one fresh process found of them."""

    def __init__(self, folder, network, task, architecture):
        self.network = network
        self.folder, self.task = made_artifact(folder, architecture, task), task
        _, workload = read_description(folder)
        self.forms = [
            f
            for f in FORMATS.values()
            if f.refusal(architecture, workload, "cpu") is None and is_tried(f, network)
        ]
        self.written = {}
        for form in self.forms:
            before = self.files()
            form.write(folder)
            self.written[form.name] = self.files() - before
        asked = conditions(folder, task)
        findings = reload_formats(self.forms, folder, asked)
        self.figures = {f.name: judge(f, folder, findings[f.name], asked) for f in self.forms}

    def files(self):
        return {str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda maker: maker.__name__)
def exported(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        patch.setenv(plugins.VARIABLE, "")
        patch.setattr(plugins, "_LOADED", {})
        name_tasks(root)
        yield Exported(root / "artifact", request.param.__name__, *request.param())


def test_every_form_holds_these_networks(exported):
    expected = {name for name, form in FORMATS.items() if is_tried(form, exported.network)}
    if exported.network not in STOCK:
        expected -= {OF_STOCK}
    assert {form.name for form in exported.forms} == expected


def test_a_form_writes_what_it_says_and_nothing_else(exported):
    for form in exported.forms:
        written = exported.written[form.name]
        assert set(form.files) <= written <= {*form.files, *form.optional_files}
        assert all((exported.folder / name).stat().st_size for name in form.files)


def test_outputs_are_those_of_the_network_for_any_batch(exported):
    for form in exported.forms:
        done = exported.figures[form.name]
        if form.has_outputs:
            assert 0 <= done.output_difference <= done.output_tolerance < 0.2
        else:
            assert done.output_tolerance is None and done.output_difference < 0.2


def test_qualities_are_of_both_splits(exported):
    for done in exported.figures.values():
        assert 0 <= done.validation_quality <= 1 and 0 <= done.test_quality <= 1
        assert done.test_quality_se > 0 and done.runtime
        json.dumps(done.to_dict(), allow_nan=False)


def test_no_file_tells_where_it_was_made_or_of_what(exported):
    home = str(exported.folder.parents[1]).encode()
    private = load_file(exported.folder / CHECK)["inputs"][0].numpy().tobytes()
    for form in exported.forms:
        for name in form.files:
            found = (exported.folder / name).read_bytes()
            assert b'.py"' not in found and b"/site-packages/" not in found
            assert b"search_spaces/models/" not in found and home not in found
            assert private not in found


@pytest.mark.parametrize("exported", [vision], indirect=True)
def test_a_form_of_other_weights_is_found_out(exported, tmp_path):
    wrong = tmp_path / "wrong"
    shutil.copytree(exported.folder, wrong)
    check = load_file(wrong / CHECK)
    save_file(check | {"outputs": check["outputs"] + 1.0}, wrong / CHECK)
    # A quality that no form of random weights has.
    asked = replace(conditions(exported.folder, exported.task), quality=0.99)
    found = reload_formats(exported.forms, wrong, asked)
    for form in exported.forms:
        words = "outputs of format .* differ" if form.has_outputs else "--quality-tolerance"
        with pytest.raises(ExportError, match=words):
            judge(form, wrong, found[form.name], asked)
        if form.has_outputs:
            with pytest.raises(ExportError, match="validation quality of format .* is 0"):
                judge(form, wrong, found[form.name] | {"output_difference": 0.0}, asked)
