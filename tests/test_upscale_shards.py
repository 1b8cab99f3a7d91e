"""`--shard I/N`: N jobs do each input once, without talking to each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sr_cli.errors import UsageError
from sr_cli.upscale.batch import run
from sr_cli.upscale.estimate import estimate
from sr_cli.upscale.events import ImageResult
from sr_cli.upscale.options import UpscaleOptions
from sr_cli.upscale.shards import Shard, shard_of
from tests.batches import photos_in_two_folders, pictures_below

BICUBIC = UpscaleOptions(model="bicubic", recursive=True)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return photos_in_two_folders(tmp_path / "in", 12)


def do(photos: Path, out: Path, shard: str | None = None) -> list[ImageResult]:
    return run([photos], out, replace(BICUBIC, shard=shard), lambda event: None)


@given(st.lists(st.text(min_size=1), unique=True), st.integers(1, 50))
def test_every_name_is_in_one_shard(names: list[str], count: int) -> None:
    parts = [{name for name in names if Shard(index, count).has(name)} for index in range(1, count + 1)]
    assert set().union(*parts) == set(names) and sum(map(len, parts)) == len(names)


def test_the_split_is_the_same_everywhere() -> None:
    """Written down: a batch that one version began must be finished by another."""
    assert [shard_of(name, 5) for name in ("a.jpg", "x/b.png", "é.jpg", "e\u0301.jpg", "-")] == [2, 5, 5, 5, 5]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/", "/3", "-1/3", "a/b", "1/0", "1/99999999"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(UsageError, match="I/N"):
        UpscaleOptions(shard=text)


def test_three_jobs_side_by_side(photos: Path, tmp_path: Path) -> None:
    do(photos, tmp_path / "one")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    options = ["-r", "-m", "bicubic", "-o", "out", "--json"]
    jobs = [
        subprocess.Popen(
            [sys.executable, "-m", "sr_cli", "upscale", "in", *options, "--shard", f"{index}/3"],
            cwd=tmp_path,
            env={**environment, "XDG_STATE_HOME": str(tmp_path / f"machine-{index}")},
            stdout=subprocess.PIPE,
        )
        for index in (1, 2, 3)
    ]
    outputs = [json.loads(job.communicate()[0]) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0, 0]
    done = [result["output"] for output in outputs for result in output["results"]]
    assert len(done) == len(set(done)) == 12 and min(len(output["results"]) for output in outputs) > 0
    assert pictures_below(tmp_path / "out") == pictures_below(tmp_path / "one")


def test_another_split_resumes_by_the_journals_of_all(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = do(photos, tmp_path / "out", "1/3")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another machine"))
    results = [result for index in (1, 2) for result in do(photos, tmp_path / "out", f"{index}/2")]
    skipped = [result.input for result in results if result.status == "skipped"]
    assert len(results) == 12 and sorted(skipped) == sorted(result.input for result in first)
    assert {result.status for result in do(photos, tmp_path / "out")} == {"skipped"}
    broken = photos / "a/broken.png"
    broken.write_text("no")
    failed = [r for index in (1, 2) for r in do(photos, tmp_path / "out", f"{index}/2") if r.status == "failed"]
    assert [result.input for result in failed] == [broken]
    Image.new("RGB", (4, 4)).save(broken)
    assert [result.input for result in do(photos, tmp_path / "out") if result.status == "done"] == [broken]


def test_outputs_beside_the_inputs_are_no_inputs_of_another_shard(photos: Path) -> None:
    for index in (1, 2, 1, 2):
        run([photos], None, replace(BICUBIC, shard=f"{index}/2"), lambda event: None)
    assert len(pictures_below(photos)) == 24


def test_a_dry_run_tells_the_work_of_every_job(photos: Path, tmp_path: Path) -> None:
    found = estimate([photos], tmp_path / "out", replace(BICUBIC, shard="2/3"))
    assert [shard.name for shard in found.shards] == ["1/3", "2/3", "3/3"]
    assert sum(shard.files for shard in found.shards) == 12
    assert sum(shard.pixels for shard in found.shards) == 12 * 48
    assert len(found.files) == found.shards[1].files == len(do(photos, tmp_path / "out", "2/3"))
