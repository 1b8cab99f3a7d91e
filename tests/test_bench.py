"""`srup bench`: what it times, how it reports, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sr_cli.bench import job
from sr_cli.bench.options import BenchOptions
from sr_cli.bench.results import BenchEvent
from sr_cli.bench.timing import Times, runs_for
from sr_cli.errors import UsageError, WeightsError
from sr_cli.inference import memory

KEY = job.Key("m", "fp32", "eager")
TINY = {"size": 8, "batches": (1,), "runs": 3, "backends": ("eager",), "precisions": ("fp32",), "photo": 0}


def ignore(event: BenchEvent) -> None:
    pass


def test_every_model_gets_every_cell_and_its_costs() -> None:
    options = BenchOptions(models=("srgan", "mesrgan"), **{**TINY, "batches": (1, 2), "photo": 8})
    result = job.run(options, ignore)
    assert [(c.model, c.batch, c.precision, c.backend) for c in result.results] == [
        (model, batch, "fp32", "eager") for batch in (1, 2) for model in ("srgan", "mesrgan")
    ]
    assert all(0 <= c.levels < 0.1 for c in result.results)
    assert all(0 < c.low_ms <= c.median_ms <= c.high_ms and c.runs == 3 for c in result.results)
    costs = {m.model: (m.parameters, m.multiplications) for m in result.models}
    assert costs["srgan"][1] == 2_218_176 and costs["mesrgan"][1] == 1_114_432
    assert [p.model for p in result.photos] == ["srgan", "mesrgan"]
    assert all(p.megapixels_per_second > 0 and 0 <= p.not_network < 1 and p.overlap == 0 for p in result.photos)
    assert result.machine["torch"] == torch.__version__


def test_progress_never_leaves_its_range() -> None:
    events: list[BenchEvent] = []
    job.run(BenchOptions(models=("mesrgan",), **TINY), events.append)
    assert all(0 <= e.done <= e.total for e in events)
    assert events[-1].done > 0


def test_scattered_times_are_marked() -> None:
    quiet = job.cell(KEY, 1, Times([0.1, 0.101, 0.102]), 0.0)
    busy = job.cell(KEY, 1, Times([0.1, 0.15, 0.1, 0.2]), 0.0)
    assert not quiet.disturbed and busy.disturbed
    assert quiet.median_ms == pytest.approx(101) and quiet.mean_ms == pytest.approx(101)


def test_runs_follow_the_time_for_a_cell() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert runs_for(0.1, 5.0, cpu) == 50
    assert runs_for(60.0, 5.0, cpu) == 3
    assert runs_for(1e-4, 5.0, cpu) == 100
    assert runs_for(60.0, 5.0, cuda) == 100


@pytest.mark.parametrize("wrong", [{"size": 0}, {"runs": 0}, {"batches": (1, 0)}, {"photo": -1}, {"seconds": 0.0}])
def test_nonsense_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        BenchOptions(**wrong)


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(WeightsError, match="nonesuch"):
        job.run(BenchOptions(models=("nonesuch",), **TINY), ignore)
    with pytest.raises(UsageError, match=r"no backend of onnxruntime|not installed"):
        job.run(BenchOptions(**{**TINY, "backends": ("onnxruntime",), "precisions": ("bf16",)}), ignore)


@pytest.mark.needs("linux")
def test_peak_memory_is_what_was_taken() -> None:
    peak = memory.peak_during(lambda: b"x" * 2**26)
    assert peak is not None
    assert 60 * 2**20 < peak < 200 * 2**20


@pytest.mark.needs("no cuda")
def test_missing_cuda_is_a_usage_error(srup_here) -> None:
    run = srup_here("bench", "--device", "cuda")
    assert run.returncode == 2
    assert run.stderr.startswith("srup: error: no device 'cuda' here") and run.stderr.count("\n") == 1


def test_json_and_plot_from_the_command_line(srup_here, tmp_path: Path) -> None:
    arguments = ["-m", "mesrgan", "-m", "esrgan", "--size", "8", "--batch", "1,2", "--runs", "1", "--photo", "0"]
    run = srup_here("bench", *arguments, "--precision", "fp32", "--backend", "eager", "--json", "--plot", "times.svg")
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    assert document["device"] == "cpu"
    keys = {"model", "batch", "precision", "backend", "median_ms", "mean_ms", "runs", "disturbed"}
    assert all(keys <= cell.keys() for cell in document["results"]) and len(document["results"]) == 4
    assert "mesrgan" in (tmp_path / "times.svg").read_text()


def test_poster_is_shown_beside_our_times(srup_here) -> None:
    arguments = ["--size", "8", "--batch", "1", "--runs", "1", "--photo", "0", "--precision", "fp32"]
    run = srup_here("bench", *arguments, "--backend", "eager", "--against", "poster")
    assert run.returncode == 0, run.stderr
    assert "26 (0.79)" in run.stdout and "155 (4.70)" in run.stdout
    assert "5,241,024" in run.stdout


@pytest.mark.parametrize(
    "arguments", [["--against", "paper"], ["--plot", "x.pdf"], ["--batch", "1,x"], ["--backend", "tensorrt"]]
)
def test_wrong_options_end_with_2(srup_here, arguments: list[str]) -> None:
    run = srup_here("bench", *arguments)
    assert run.returncode == 2 and run.stderr.count("\n") == 1, run.stderr
