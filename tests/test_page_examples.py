"""Examples of compression.md, supernet.md, spaces.md and tutorial.md, run as written."""

import numpy as np
import pytest
import torch
import yaml
from export_fakes import made_artifact
from pages import DOCS, ROOT, blocks, lines_of, output_of

from nas.tasks.registry import get_task
from search_spaces.architecture import Architecture, AttentionSpec, Compression, FfnSpec, LayerSpec
from search_spaces.models.build import build
from search_spaces.space import SearchSpace

WORKLOAD = get_task("digits").workload(16)


def digits_network(n_heads=2, d_ff=32, sparsity="dense"):
    layer = LayerSpec(
        AttentionSpec(n_heads, n_heads, 8), FfnSpec(d_ff, None, Compression("bf16", sparsity))
    )
    architecture = Architecture(16, (layer,), patch_size=4)
    return architecture, build(architecture, WORKLOAD, generator_seed=0)


def test_what_is_shown_of_compression_runs(tmp_path):
    inheriting, masking, storing = blocks(DOCS / "compression.md", "python")
    large, teacher = digits_network(n_heads=4, d_ff=64)
    small, _ = digits_network()
    split = get_task("digits").split("train")
    inputs, labels = torch.from_numpy(split.inputs[:32]), torch.from_numpy(split.targets[:32])
    names = {
        "teacher": teacher,
        "large": large,
        "small": small,
        "workload": WORKLOAD,
        "batches_of_training_data": [(inputs, labels)],
    }
    exec(inheriting, names)
    assert names["student"](inputs).shape == (32, 10)

    architecture, model = digits_network(sparsity="unstructured-90")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(inputs).sum().backward()
    exec(masking, {"model": model, "architecture": architecture, "optimizer": optimizer})
    zeros = max(float((weight == 0).float().mean()) for weight in model.parameters())
    assert zeros > 0.85

    path = tmp_path / "small.safetensors"
    names = {"model": model, "architecture": architecture, "workload": WORKLOAD, "path": path}
    exec(storing, names)
    assert path.is_file() and names["model"](inputs).shape == (32, 10)


def test_what_is_shown_of_supernets_runs():
    (shown,) = blocks(DOCS / "supernet.md", "python")
    names = {}
    exec(shown, names)
    inputs = torch.from_numpy(get_task("digits").split("test").inputs[:4])
    supernet, network = names["supernet"].eval(), names["network"].eval()
    with torch.no_grad(), supernet.active(names["smallest"](names["space"])):
        torch.testing.assert_close(supernet(inputs), network(inputs), rtol=0, atol=1e-6)


def test_what_is_shown_of_spaces_is_what_is_printed(tmp_path):
    page = DOCS / "spaces.md"
    space, *_ = blocks(page, "yaml")
    (tmp_path / "my-space.yaml").write_text(space)
    pairs = zip(blocks(page, "python"), blocks(page, "text"), strict=True)
    for shown, printed in pairs:
        assert output_of(shown, tmp_path, timeout=120) == printed


def test_what_spaces_are_refused_for_is_what_is_said():
    page = DOCS / "spaces.md"
    space = yaml.safe_load(blocks(page, "yaml")[0])
    rows = page.read_text().partition("| the line | the error |\n|---|---|\n")[2]
    n_rows = 0
    for row in rows.partition("\n\n")[0].splitlines():
        line, said = (cell.strip() for cell in row.strip("|").split(" | "))
        changed = space | yaml.safe_load(line.strip("`"))
        try:
            SearchSpace.from_dict(changed)
        except ValueError as error:
            assert said.removesuffix(" ...") in str(error)
            n_rows += 1
        else:
            raise AssertionError(f"{line} must be refused")
    assert n_rows >= 10


def test_the_genes_that_are_listed_are_all_there_are():
    page = DOCS / "spaces.md"
    table = page.read_text().partition("| gene | values | default |\n|---|---|---|\n")[2]
    rows = [row.strip("|").split(" | ") for row in table.partition("\n\n")[0].splitlines()]
    genes = {gene.strip(" `"): row[2] for row in rows for gene in row[0].split(",")}
    space = SearchSpace.from_dict(yaml.safe_load(blocks(page, "yaml")[0]))
    assert genes.keys() == space.domains.keys()
    for gene, default in genes.items():
        given = {key: domain for key, domain in space.domains.items() if key != gene}
        if "required" in default:
            with pytest.raises(ValueError, match=f"lacks {gene}"):
                SearchSpace(name="without", domains=given, shared=space.shared)
        else:
            without = SearchSpace(name="without", domains=given, shared=space.shared)
            (plain,) = yaml.safe_load(default.strip(" `"))
            assert without.values(gene) == (plain,)


def test_the_tutorial_installs_as_make_does():
    (line,) = (line for line in lines_of(DOCS / "tutorial.md") if " pip install " in line)
    constraint, editable = line.partition(" pip install ")[2].split(" --editable ")
    makefile = (ROOT / "Makefile").read_text()
    assert f"pip install --quiet {constraint}\n" in makefile
    assert f"$(INSTALL) --editable {editable}\n" in makefile


def test_what_the_tutorial_takes_away_runs(tmp_path):
    architecture, _ = digits_network()
    made_artifact(tmp_path / "model", architecture, "digits")
    (shown,) = blocks(DOCS / "tutorial.md", "python")
    printed = output_of(shown, tmp_path, timeout=120)
    described, share = printed.strip().split(": ")
    assert described == architecture.describe() and share.endswith("% of 360 test digits")
    assert 0 <= float(share.split("%")[0]) <= 100 and np.isfinite(float(share.split("%")[0]))
