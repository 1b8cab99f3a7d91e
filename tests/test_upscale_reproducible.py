"""The same photo gives the same bytes, whatever was enlarged before; and what made it is said."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_fidelity import home, register

from sr_cli import __version__, images, inference
from sr_cli.errors import OutOfMemory
from sr_cli.images.png import PngWriter
from sr_cli.inference import backends
from sr_cli.upscale.batch import run
from sr_cli.upscale.events import ImageResult, UpscaleEvent
from sr_cli.upscale.options import UpscaleOptions
from sr_cli.upscale.pipeline import Abandoned, RowGate
from tests.networks import SMALL, with_weights

__all__ = ["home"]

OPTIONS = UpscaleOptions(model="mine", device="cpu", tile=16, overlap=4)


@pytest.fixture
def photos(tmp_path: Path, home: Path) -> list[Path]:
    """Ten photos of several sizes; the larger ones have tiles enough for OpenVINO's form for streams."""
    register(home, "mine", {"pixel": (with_weights(SMALL["mesrgan"]), None)}, "pixel")
    paths = []
    for index in range(10):
        side = (12, 40, 72)[index % 3]
        pixels = np.random.default_rng(index).integers(0, 256, (side, side + index, 3), np.uint8)
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def enlarge(photos: Sequence[Path], to: Path, stop_before: int | None = None, **options: Any) -> list[ImageResult]:
    """Run a batch, interrupted before it starts that many photos."""

    def report(event: UpscaleEvent) -> None:
        if event.kind == "started" and event.index == stop_before:
            raise KeyboardInterrupt

    return run(photos, to, UpscaleOptions(**{**vars(OPTIONS), **options}), report)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("backend", ["eager", "openvino"])
def test_ten_photos_in_any_order_and_interrupted_give_the_same_bytes(
    backend: str, photos: list[Path], tmp_path: Path
) -> None:
    if (reason := backends.get(backend).missing("cpu")) is not None:
        pytest.skip(reason)
    for folder in ("one", "two", "three"):
        (tmp_path / folder).mkdir()
    done = enlarge(photos, tmp_path / "one", backend=backend)
    assert {result.computation.backend for result in done if result.computation} == {backend}
    enlarge(photos[::-1], tmp_path / "two", backend=backend)
    with pytest.raises(KeyboardInterrupt):
        enlarge(photos, tmp_path / "three", stop_before=5, backend=backend)
    resumed = enlarge(photos, tmp_path / "three", backend=backend)
    assert [result.status for result in resumed] == ["skipped"] * 5 + ["done"] * 5
    expected = contents(tmp_path / "one")
    assert len(expected) == 10
    assert contents(tmp_path / "two") == expected
    assert contents(tmp_path / "three") == expected


def test_a_batch_takes_openvino_where_it_is_installed_and_a_small_photo_alone_does_not(
    photos: list[Path], tmp_path: Path
) -> None:
    if (reason := backends.get("openvino").missing("cpu")) is not None:
        pytest.skip(reason)
    (tmp_path / "out").mkdir()
    several = enlarge(photos[:2], tmp_path / "out")
    alone = enlarge(photos[2:3], tmp_path / "alone.png")
    used = [result.computation.backend for result in several + alone if result.computation]
    assert used == ["openvino", "openvino", "eager"]


def test_another_way_to_compute_is_another_result_for_the_journal(photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    enlarge(photos[:2], tmp_path / "out", backend="eager")
    again = enlarge(photos[:2], tmp_path / "out", backend="eager")
    assert [result.status for result in again] == ["skipped", "skipped"]
    before = torch.get_num_threads()
    try:
        for other in ({"tile": 24}, {"precision": "bf16"}, {"overlap": 8}, {"threads": before + 1}):
            changed = enlarge(photos[:2], tmp_path / "out", backend="eager", **other)
            assert [result.status for result in changed] == ["failed", "failed"], other
            assert "other options, weights or threads" in str(changed[0].error)
    finally:
        torch.set_num_threads(before)


def test_what_processes_with_fewer_threads_did_is_done_for_one_with_as_many(photos: list[Path], tmp_path: Path) -> None:
    """As `--devices cpu:2` leaves a batch that goes on without it."""
    (tmp_path / "out").mkdir()
    before = torch.get_num_threads()
    try:
        enlarge(photos[:2], tmp_path / "out", device="auto", devices="cpu:2", backend="eager")
        torch.set_num_threads(before + 1)
        again = enlarge(photos[:2], tmp_path / "out", threads=max(1, before // 2), backend="eager")
    finally:
        torch.set_num_threads(before)
    assert [result.status for result in again] == ["skipped", "skipped"]


@pytest.mark.usefixtures("home")
def test_json_says_what_made_a_result(photos: list[Path], srup_here) -> None:
    arguments = ["upscale", photos[0], "-m", "mine", "-o", "out.png", "--device", "cpu", "--tile", "8", "--json"]
    found = srup_here(*arguments, "--backend", "eager", "--threads", torch.get_num_threads())
    assert found.returncode == 0, found.stderr
    (result,) = json.loads(found.stdout)["results"]
    expected = {"model": "mine", "stage": "pixel", "device": "cpu", "precision": "fp32", "backend": "eager", "tile": 8}
    assert {name: result[name] for name in expected} == expected
    assert result["fidelity"] is None and result["version"] == __version__
    assert len(result["weights_sha256"]) == 64


@pytest.mark.usefixtures("home")
def test_verbose_says_what_was_chosen_and_why(photos: list[Path], srup_here) -> None:
    found = srup_here("upscale", photos[0], "-m", "mine", "-o", "out.png", "--device", "cpu", "-v")
    assert found.returncode == 0, found.stderr
    assert "mine on cpu, fp32, eager" in found.stderr
    assert "precision fp32: " in found.stderr and "backend eager: " in found.stderr


def test_a_png_is_written_while_the_network_is_still_at_work(
    photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = threading.Event()
    write = PngWriter.write

    def note(self: PngWriter, rows: images.Pixels) -> None:
        write(self, rows)
        written.set()

    seen: list[bool] = []

    def report(event: UpscaleEvent) -> None:
        # The last tile is there, but its rows have not been handed on yet.
        if event.kind == "progress" and event.done == event.total:
            seen.append(written.wait(60))

    monkeypatch.setattr(PngWriter, "write", note)
    tall = np.random.default_rng(0).integers(0, 256, (80, 20, 3), np.uint8)
    Image.fromarray(tall).save(tmp_path / "tall.png")
    options = UpscaleOptions(**{**vars(OPTIONS), "backend": "eager"})
    (result,) = run([tmp_path / "tall.png"], tmp_path / "large.png", options, report)
    assert result.status == "done" and seen == [True]
    expected = inference.Upscaler("mine", device="cpu", tile=16, overlap=4, backend="eager").upscale(tall).pixels
    assert np.array_equal(np.asarray(Image.open(tmp_path / "large.png")), expected)


def test_a_photo_with_transparency_is_the_same_as_without_overlapped_writing(
    photos: list[Path], tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 4), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    for name in ("a.png", "a.tif"):
        (result,) = enlarge([tmp_path / "clear.png"], tmp_path / name, backend="eager")
        assert result.status == "done"
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), np.asarray(Image.open(tmp_path / "a.tif")))


@pytest.mark.parametrize("several", [False, True])
def test_a_network_that_fails_in_the_middle_leaves_nothing_and_is_reported_once(
    several: bool, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(
        self: inference.Upscaler, pixels: images.Pixels, progress: Any = None, on_rows: Any = None, out: Any = None
    ) -> inference.EngineResult:
        if on_rows:
            on_rows(out[:16])
        raise OutOfMemory("out of memory in the middle")

    monkeypatch.setattr(inference.Upscaler, "upscale", failing)
    (tmp_path / "out").mkdir()
    events: list[UpscaleEvent] = []
    wanted = photos[:2] if several else photos[:1]
    options = UpscaleOptions(**{**vars(OPTIONS), "backend": "eager"})
    results = run(wanted, tmp_path / "out", options, events.append)
    assert [result.status for result in results] == ["failed"] * len(wanted)
    assert sum(event.kind == "failed" for event in events) == len(wanted)
    assert contents(tmp_path / "out") == {}


def test_a_disk_that_is_full_stops_the_network_and_is_reported_once(
    photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: PngWriter, rows: images.Pixels) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PngWriter, "write", full)
    events: list[UpscaleEvent] = []
    options = UpscaleOptions(**{**vars(OPTIONS), "backend": "eager"})
    (result,) = run(photos[2:3], tmp_path / "large.png", options, events.append)
    assert result.status == "failed" and result.exit_code == 6
    assert sum(event.kind == "failed" for event in events) == 1
    assert not (tmp_path / "large.png").exists()


def test_a_gate_opens_row_by_row_and_both_ends_can_give_up() -> None:
    gate = RowGate()
    gate.advance(3)
    gate.advance(7)
    gate.wait_for(2)
    gate.wait_for(7)
    gate.advance(9)
    gate.abandon()
    gate.wait_for(9)  # what is final stays so
    with pytest.raises(Abandoned):
        gate.wait_for(10)
    with pytest.raises(Abandoned):
        gate.wait_for(1)
    with pytest.raises(Abandoned):
        gate.advance(12)
