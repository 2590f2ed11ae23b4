"""What has no kernel on a device is named wherever it shows, and its joules are what ran."""

from search_fakes import WORKLOAD, make_trial, reading

from nas.cli.commands.front import render_table
from nas.pareto.queries import Front
from nas.records.front_member import member_of
from predictors.measurement.protocol import Protocol
from predictors.measurement.runner import make_job
from predictors.measurement.windows import run_windows
from predictors.measurement.worker import Subject, make_record
from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)

MASKED = Architecture(
    16,
    (LayerSpec(AttentionSpec(2, 2, 8), FfnSpec(32, None, Compression("fp32", "2:4"))),),
    patch_size=4,
)


def test_a_record_of_a_simulated_choice_carries_the_flag(monkeypatch):
    # Op by op: the flag does not depend on compiling.
    monkeypatch.setenv("CXX", "no-such-compiler")
    protocol = Protocol("fast", warmup_s=0.01, warmup_iterations=2, window_s=0.02, max_repeats=6)
    subject = Subject(make_job("measure", MASKED, WORKLOAD, protocol=protocol, meter="estimate"))
    record = make_record(subject, run_windows(subject.loop, protocol), 1.0)
    assert "simulated_2:4" in record.flags
    assert record.reading.energy_j > 0
    subject.meter.close()


def test_the_front_names_what_is_simulated_on_the_device_of_the_search():
    record = make_trial(
        0,
        "complete",
        MASKED,
        quality=0.9,
        quality_se=0.01,
        reading=reading(1e-6),
        params=1,
    )
    shown = render_table(Front.of([member_of(record, "cpu")]))
    assert "fp32 2:4 (2:4 simulated)" in shown
