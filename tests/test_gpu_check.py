"""The script that checks the engine on a GPU keeps its results."""

from __future__ import annotations

from pathlib import Path

from tests.gpu_check import Step, run_step, steps


def test_a_step_that_hangs_is_cut_off_and_keeps_its_output() -> None:
    script = "print('begun', flush=True); import time; time.sleep(60)"
    outcome = run_step(Step("hangs", ("-c", script), 2))
    assert outcome.status is None
    assert outcome.output == ["begun"]


def test_a_step_s_figures_are_read(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    script = f"open({str(figures)!r}, 'w').write('[1]')"
    outcome = run_step(Step("writes", ("-c", script), 30, str(figures)))
    assert (outcome.status, outcome.figures) == (0, [1])


def test_all_steps_fit_in_ten_minutes(tmp_path: Path) -> None:
    assert sum(step.seconds for step in steps("cuda", tmp_path, [])) < 600
