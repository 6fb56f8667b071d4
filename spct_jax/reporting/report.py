"""A run's report, made again at any time from the files its stages left: `report.json`, `report.md` and plots."""

import os

from spct_jax.reporting import markdown, plots
from spct_jax.reporting.results import figures
from spct_jax.reporting.run_files import read_run_files
from spct_jax.storage import files, paths


def write_report(workdir: str | os.PathLike) -> dict:
    """Makes `report.json`, `report.md` and the plots of a workdir, each in one atomic step, and returns the figures.

    The same files give the same bytes.

    Raises:
      InputError: as `read_run_files`.
    """
    workdir = paths.of(workdir)
    run = read_run_files(workdir)
    report = figures(run)
    drawn = {}
    if report["accuracy"]:
        stages = plots.accuracy_by_stage(report["accuracy"], report["intervals"], report["chance"])
        drawn["accuracy_by_stage.png"] = stages
    if report["by_k"]:
        greedy = {label: value["greedy"] for label, value in report["accuracy"].items() if "greedy" in value}
        drawn["accuracy_by_k.png"] = plots.accuracy_by_k(report["by_k"], greedy, markdown.temperature(report))
    if curves := plots.learning_curves(run.curves):
        drawn["learning_curves.png"] = curves
    for name, png in drawn.items():
        files.write(workdir / name, png)
    files.write(workdir / "report.md", markdown.markdown(report, run, list(drawn)))
    files.write_json(workdir / "report.json", report)
    return report
