"""The simulated clock keeps workers apart, and growth is told from figures."""

from dataclasses import replace

import pytest

from experiments.benchmarks.runtime import search_scale
from experiments.benchmarks.runtime.scale.growth import exponent
from experiments.benchmarks.runtime.scale.simulate import Point
from experiments.results.record import FOLDER, kept


def test_growth_is_the_exponent_of_the_last_decade():
    point = Point(1, 1.0, 1.0, 1.0, 1.0, 1.0, 1, 1.0, 1.0, 1.0, 1)
    points = [
        replace(point, trials=n, cpu_s=n**1.5 if n >= 1000 else 1.0)
        for n in (1, 1000, 3000, 10000)
    ]
    assert exponent(points, lambda p: p.cpu_s) == pytest.approx(1.5)
    assert exponent(points, lambda p: p.front_cpu_s) == pytest.approx(0.0)


def test_a_small_search_is_simulated_whole(tmp_path, capsys):
    plot = tmp_path / "scale.png"
    arguments = ["--trials", "24", "--workers", "6", "--sampler", "random"]
    assert search_scale.main([*arguments, "--keep", str(tmp_path), "--plot", str(plot)]) == 0
    (result,) = kept(tmp_path)
    (point,) = result.table("points").rows
    assert point["trials"] == 24 and 1 <= point["front_members"] <= 24
    # Six workers, each at least a minute a trial: four rounds, and not twenty-four.
    assert 4 * 30 < point["simulated_s"] < 24 * 60
    assert point["storage_bytes"] > 24 * 500 and point["propose_cpu_s"] > 0
    assert "growth: " in capsys.readouterr().out and plot.stat().st_size > 10_000


def test_a_kept_result_is_drawn_as_it_was_and_nothing_else_is(tmp_path, capsys):
    (result,) = [found for found in kept() if found.theme == "search-scale"]
    points = search_scale.points_of(result)
    assert [p.trials for p in points] == sorted(p.trials for p in points)
    assert points[-1].trials == result.config["trials"]
    # The table is made of the same points that the picture is.
    assert search_scale.table_of(points) == result.table("points")
    plot = tmp_path / "scale.png"
    assert search_scale.main(["--of", str(FOLDER / result.name), "--plot", str(plot)]) == 0
    assert plot.stat().st_size > 10_000 and not capsys.readouterr().out
    for bad in (["--of", str(FOLDER / result.name)], ["--of", str(plot), "--plot", str(plot)]):
        with pytest.raises(SystemExit):
            search_scale.main(bad)
        assert "error: --of" in capsys.readouterr().err
