"""Commands of fresh interpreters: arguments arrive, and the working directory is not searched."""

import json
import subprocess
import sys

from sources import ROOT, sources, text_of

from nas.core.interpreter import module_command


def test_the_working_directory_is_not_searched(monkeypatch, tmp_path):
    (tmp_path / "statistics.py").write_text("print('a file of the user ran')\n")
    monkeypatch.chdir(tmp_path)
    for module in ("statistics", "nas"):
        done = subprocess.run(module_command(module), capture_output=True, text=True, check=False)
        assert "a file of the user" not in done.stdout


def test_a_module_runs_as_the_main_one_with_its_arguments():
    command = module_command("json.tool", "--compact")
    done = subprocess.run(command, input='{"a": 1}', capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"a": 1}


def test_the_folder_of_the_project_is_searched_last(monkeypatch, tmp_path):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    code = module_command("site")[-1].replace("runpy.run_module", "print(sys.path[-1]); 0 and str")
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == str(ROOT)


def test_no_process_is_started_by_python_m():
    for path in sources():
        if path.relative_to(ROOT).parts[0] != "experiments":
            assert 'sys.executable, "-m"' not in text_of(path), path
