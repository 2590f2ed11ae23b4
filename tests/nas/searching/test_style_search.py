"""A whole search from scratch over block styles, in this process."""

from record_fakes import made_record, true_j

import nas
from nas.records.config import SearchConfig
from nas.searching import in_process
from nas.training.config import TrainingConfig
from search_spaces.architecture import STYLES
from search_spaces.space import SearchSpace

SPACE = SearchSpace.from_dict(
    {
        "name": "styles",
        "d_model": [8, 16],
        "depth": [1],
        "n_heads": [1, 2],
        "n_kv_heads": [1],
        "ffn_ratio": [1, 2],
        "patch_size": [4],
        "blocks": ["default", "llama"],
    }
)


def test_a_search_trains_measures_and_resumes_over_styles(tmp_path, monkeypatch):
    def made(architecture, workload, **_):
        return made_record(architecture, workload, true_j(architecture, workload))

    # Compiling and measuring take longer than all else here.
    (name,) = (each for each in vars(in_process) if each.startswith("measure_"))
    monkeypatch.setattr(in_process, name, made)
    config = SearchConfig(
        task="digits",
        space=SPACE,
        trials=2,
        seed=0,
        training=TrainingConfig(epochs=1),
        meter="estimate",
        protocol="quick",
    )
    nas.search(config, tmp_path / "run", workers=0)
    trials = nas.load(tmp_path / "run").trials()
    assert [trial.state for trial in trials] == ["complete"] * 2
    styles = {trial.candidate.architecture.style for trial in trials}
    assert styles == {STYLES["default"], STYLES["llama"]}
    nas.resume(tmp_path / "run", trials=3)
    assert [t.state for t in nas.load(tmp_path / "run").trials()] == ["complete"] * 3
