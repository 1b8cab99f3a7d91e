"""`srup eval`: scores, protocols, awkward folders, interruption, the self-check."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from sr_cli import hub
from sr_cli.__main__ import run
from sr_cli.errors import InputError, UsageError, WeightsError
from sr_cli.evaluate import job as evaluate
from sr_cli.evaluate import self_check
from sr_cli.evaluate.job import EvalEvent, EvalOptions
from sr_cli.evaluate.journal import Journal
from sr_cli.evaluate.options import ProtocolName, PublishedName
from sr_cli.evaluate.protocols import PROTOCOLS
from sr_cli.storage import cache_folder, sha256_of_file
from tests.fake_hub import FakeHub
from tests.networks import SMALL, with_weights
from tests.test_datasets import png, serve, zipped

FAST = ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "rmse")


def write(path: Path, height: int = 48, width: int = 64, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(height, width, seed))
    return path


def evaluated(folder: Path, events: list[EvalEvent] | None = None, **options: Any) -> evaluate.Evaluation:
    settings = {"models": ("bicubic",), "metrics": FAST, "data": (folder,), **options}
    return evaluate.run(EvalOptions(**settings), (events if events is not None else []).append)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network's file."""
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    save_file(dict(with_weights(SMALL["mesrgan"]).state_dict()), path)
    return path


def test_published_scores_of_bicubic(srup_here: Any, shared: Path) -> None:
    folders = [shared / "data/test/Set5", shared / "data/test/Set14"]
    done = srup_here("eval", "--data", folders[0], "--data", folders[1], "-m", "bicubic", "--json", "--offline")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["protocol"] == "standard"
    set5, set14 = document["results"]
    assert set5["metrics"]["psnr_y"] == pytest.approx(28.43, abs=0.02)
    assert set5["metrics"]["ssim_y"] == pytest.approx(0.8104, abs=0.001)
    assert set14["metrics"]["psnr_y"] == pytest.approx(26.09, abs=0.02)
    assert set14["metrics"]["ssim_y"] == pytest.approx(0.7048, abs=0.001)
    assert (set5["lr"], set5["measured"], len(set14["images"])) == ("shipped", 5, 14)
    assert set5["metrics"]["niqe"] is None
    assert "--niqe-parameters" in set5["unavailable"]["niqe"]
    assert set5["metrics"]["pi"] is None
    assert set5["unavailable"]["pi"]
    assert set(set5["metrics"]) == {"psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "rmse", "niqe", "pi"}


def test_interpolation_needs_no_torch(tmp_path: Path) -> None:
    write(tmp_path / "set/a.png")
    script = "import sys; from sr_cli.__main__ import run; code = run(sys.argv[1:]); assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", script, "eval", "--data", str(tmp_path / "set"), "-m", "bicubic", "-m", "lanczos"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_niqe_is_computed_with_a_local_file(shared: Path) -> None:
    parameters = shared / "reference/niqe_modelparameters.mat"
    found = evaluated(shared / "data/test/Set5", metrics=("niqe", "pi"), niqe_parameters=parameters)
    scores = {image.name[:7]: image for image in found.results[0].images}
    assert scores["img_001"].metrics["niqe"] == pytest.approx(7.2, abs=2)
    assert found.results[0].metrics["pi"] is None
    assert "NRQM" in found.results[0].unavailable["pi"]


def test_a_network_and_all_outputs(weights: Path, tmp_path: Path) -> None:
    write(tmp_path / "set/a.png")
    write(tmp_path / "set/b.png", 50, 70, seed=1)
    options = {"models": (str(weights), "bicubic"), "save_images": tmp_path / "out"}
    found = evaluated(tmp_path / "set", **options)
    assert [result.model for result in found.results] == ["untrained", "bicubic"]
    assert found.results[0].weights_sha256 == sha256_of_file(weights)
    for model in ("untrained", "bicubic"):
        with Image.open(tmp_path / "out/set" / model / "b.png") as image:
            assert image.size == (68, 48)
    assert evaluated(tmp_path / "set", models=("bicubic",)).results[0].metrics == found.results[1].metrics


def test_means_are_over_images(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / f"set/{i}.png", 40 + 4 * i, 60, seed=i)
    result = evaluated(tmp_path / "set").results[0]
    for name in FAST:
        assert result.metrics[name] == pytest.approx(np.mean([image.metrics[name] for image in result.images]))
    assert [image.name for image in result.images] == ["0.png", "1.png", "2.png", "3.png"]


def test_the_poster_protocol(tmp_path: Path) -> None:
    """Held against the poster's formulas, written down once more on torch tensors."""
    import torch
    from torch.nn import functional

    write(tmp_path / "set/a.png", 64, 64)
    metrics = evaluated(tmp_path / "set", protocol="poster").results[0].metrics
    with Image.open(tmp_path / "set/a.png") as image:
        hr = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].double() / 255
    lr = functional.interpolate(hr, size=(16, 16), mode="bicubic", align_corners=False).clamp(0, 1)
    planes = [
        Image.fromarray(plane.numpy().astype(np.float32)).resize((64, 64), Image.Resampling.BICUBIC) for plane in lr[0]
    ]
    output = torch.from_numpy(np.stack([np.array(plane) for plane in planes])).double().clamp(0, 1)
    error = (output - hr[0]).square().mean()
    assert metrics["psnr_rgb"] == pytest.approx(float(-10 * torch.log10(error + 1e-6)), abs=1e-4)
    assert metrics["rmse"] == pytest.approx(255 * float(error.sqrt()), abs=0.05)
    assert metrics["psnr_y"] is None


def test_the_posters_lr_ignores_shipped_files(tmp_path: Path) -> None:
    write(tmp_path / "a_HR.png")
    write(tmp_path / "a_LR.png", 5, 5)
    write(tmp_path / "b_HR.png")
    found = evaluated(tmp_path, against="poster")
    assert (found.protocol.name, found.results[0].lr, found.results[0].measured) == ("poster", "made", 2)
    assert found.to_dict()["against"]["results"][0]["metrics"]["pi"] == 3.57


def awkward(folder: Path) -> Path:
    """Pairs of every kind of trouble, and two that are fine."""
    write(folder / "good_HR.png")
    write(folder / "good_LR.png", 12, 16)
    write(folder / "small_HR.png", 12, 12)
    write(folder / "small_LR.png", 3, 3)
    write(folder / "mismatch_HR.png")
    write(folder / "mismatch_LR.png", 12, 15)
    write(folder / "alone_HR.png")
    write(folder / "broken_HR.png").write_bytes(png(48, 64)[:300])
    write(folder / "broken_LR.png", 12, 16)
    grey = np.random.default_rng(0).integers(0, 65536, (48, 64), dtype=np.uint16)
    Image.fromarray(grey).save(folder / "deep_HR.png")
    Image.fromarray((grey[::4, ::4] // 257).astype(np.uint8)).save(folder / "deep_LR.png")
    return folder


def test_awkward_images_are_named_and_the_others_measured(srup_here: Any, tmp_path: Path) -> None:
    folder = awkward(tmp_path / "set")
    done = srup_here("eval", "--data", folder, "-m", "bicubic", "-m", "lanczos", "--json")
    assert done.returncode == 1
    for result in json.loads(done.stdout)["results"]:
        failed = {entry["name"]: entry["error"] for entry in result["failed"]}
        assert set(failed) == {"mismatch_HR.png", "alone_HR.png", "broken_HR.png"}
        assert "LR of 15x12 does not fit HR of 64x48" in failed["mismatch_HR.png"]
        assert "no LR image" in failed["alone_HR.png"]
        assert "damaged" in failed["broken_HR.png"]
        images = {image["name"]: image for image in result["images"]}
        small = images["small_HR.png"]
        assert small["metrics"]["ssim_y"] is None
        assert "11x11" in small["unavailable"]["ssim_y"]
        assert small["metrics"]["psnr_y"] is not None
        assert images["deep_HR.png"]["metrics"]["ssim_y"] is not None
        assert result["measured"] == 3
        assert "small_HR.png" in result["unavailable"]["ssim_y"]
    assert done.stderr.count("srup: error: ") == 3


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def code(*arguments: object) -> int:
        return run(["eval", *map(str, arguments)])

    (tmp_path / "empty").mkdir()
    write(tmp_path / "bad/a.png").write_bytes(b"nothing")
    good = write(tmp_path / "good/a.png").parent
    assert code("--data", tmp_path / "empty", "-m", "bicubic") == 3
    assert code("--data", tmp_path / "absent", "-m", "bicubic") == 3
    assert code("--data", tmp_path / "bad", "-m", "bicubic") == 3
    assert code("--data", good, "-m", "nonesuch") == 4
    assert code("-m", "bicubic") == 2
    capsys.readouterr()
    assert code("--data", good, "-m", "bicubic", "--csv", tmp_path / "absent/x.csv") == 2
    assert capsys.readouterr().out == ""
    assert code("--data", good, "-m", "bicubic", "--metrics", "rmse") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("pnsr",)}, "--metrics must be psnr_y.* not 'pnsr'"),
        ({"input_jpeg": (0,)}, "--input-jpeg must be between 1 and 100, not 0"),
        ({"degrade": "foto"}, "--degrade must be none or photo, not 'foto'"),
        ({"input_jpeg": (75,), "protocol": "poster"}, "the poster protocol prescribes"),
        ({"datasets": ("set6",)}, "--dataset must be set5.* not 'set6'"),
        ({"protocol": "mine"}, "--protocol must be standard or poster, not 'mine'"),
        ({"against": "ntire"}, "--against must be poster, not 'ntire'"),
        ({"against": "poster", "protocol": "standard"}, "without --protocol"),
        ({"data": ()}, "say what to measure on"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EvalOptions(**{"data": (Path("x"),), **options})


def test_models_and_folders_of_one_name(weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / weights.name
    other.parent.mkdir()
    other.write_bytes(weights.read_bytes())
    for side in ("a", "b"):
        write(tmp_path / side / "set/x.png")
    options = {"models": (str(weights), str(other)), "data": (tmp_path / "a/set", tmp_path / "b/set")}
    found = evaluated(tmp_path, **options)
    assert len({(result.model, result.dataset) for result in found.results}) == 4


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    for i in range(12):
        write(tmp_path / f"set/{i:02}.png", seed=i)
    expected = evaluated(tmp_path / "set")

    notes: list[str] = []

    def interrupt(event: EvalEvent) -> None:
        if event.kind == "image" and event.done == 5:
            raise KeyboardInterrupt
        notes.append(event.text)

    options = EvalOptions(models=("bicubic",), metrics=FAST, data=(tmp_path / "set",))
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(options, interrupt)
    assert notes[-1] == "5 of 12 images are measured; run the same command again to resume"
    (journal,) = (cache_folder() / "eval").iterdir()
    journal.write_bytes(journal.read_bytes()[:-20])  # killed while it wrote
    events: list[EvalEvent] = []
    found = evaluated(tmp_path / "set", events)
    assert found.results == expected.results
    assert [event.kind for event in events].count("image") == 8
    assert events[0].kind == "resumed"
    assert not list((cache_folder() / "eval").iterdir()), "a complete run leaves nothing to resume"


def test_other_conditions_do_not_resume(tmp_path: Path) -> None:
    first = Journal(tmp_path, {"metrics": ("niqe",)})
    first.append({"dataset": "d", "image": "i", "scores": {}})
    assert Journal(tmp_path, {"metrics": ("niqe",)}).records
    assert not Journal(tmp_path, {"metrics": ("pi",)}).records
    assert not Journal(tmp_path, {"metrics": ("niqe",)}, fresh=True).records


def test_csv(tmp_path: Path, srup_here: Any) -> None:
    folder = awkward(tmp_path / "set")
    target = tmp_path / "scores.csv"
    done = srup_here(
        "eval", "--data", folder, "-m", "bicubic", "-m", "lanczos", "--csv", target, "--metrics", "ssim_y,rmse"
    )
    assert done.returncode == 1
    rows = list(csv.DictReader(target.open(encoding="utf-8")))
    assert len(rows) == 12
    assert {row["model"] for row in rows} == {"bicubic", "lanczos"}
    small = next(row for row in rows if row["image"] == "small_HR.png")
    assert (small["ssim_y"], float(small["rmse"]) > 0) == ("", True)
    assert "11x11" in small["note"]
    assert "bicubic" in done.stdout
    assert "RMSE" in done.stdout


def test_json_lines(tmp_path: Path, srup_here: Any) -> None:
    write(tmp_path / "set/a.png")
    done = srup_here("eval", "--data", tmp_path / "set", "-m", "bicubic", "--json-lines", "--metrics", "rmse")
    first, last = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["event"], first["model"], first["name"]) == ("image", "bicubic", "a.png")
    assert last["results"][0]["metrics"]["rmse"] == pytest.approx(first["metrics"]["rmse"])


def test_equal_images_have_no_finite_psnr(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), (10, 200, 30)).save(tmp_path / "flat.png")
    image = evaluated(tmp_path).results[0].images[0]
    assert image.metrics["psnr_y"] is None
    assert "equal" in image.unavailable["psnr_y"]
    assert image.metrics["rmse"] == 0


def test_div2k_from_a_hub(srup_here: Any, fake_hub: FakeHub) -> None:
    hr = {f"DIV2K_valid_HR/{i:04}.png": png(24, 32, i) for i in range(801, 901)}
    lr = {f"DIV2K_valid_LR_bicubic/X4/{i:04}x4.png": png(6, 8, i) for i in range(801, 901)}
    serve(fake_hub, "div2k-val", zipped(hr), zipped(lr))
    done = srup_here("eval", "--dataset", "div2k-val", "-m", "bicubic", "--metrics", "psnr_y", "--json")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert (result["dataset"], result["lr"], result["measured"]) == ("div2k-val", "shipped", 100)
    assert srup_here("eval", "--dataset", "div2k-val", "-m", "bicubic", "--offline").returncode == 0


def test_div2k_without_a_network(srup: Any) -> None:
    done = srup("eval", "--dataset", "div2k-val", "-m", "bicubic", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="0")
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    for part in ("480 MB", "DIV2K_valid_HR.zip", "--data"):
        assert part in line


def test_no_model_is_an_error_before_any_image(tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    events: list[EvalEvent] = []
    with pytest.raises(WeightsError):
        evaluated(tmp_path, events, models=("bicubic", "nonesuch"))
    assert events == []


def test_files_that_are_given_must_be_right(tmp_path: Path) -> None:
    write(tmp_path / "set/a.png")
    wrong = tmp_path / "wrong.mat"
    for content in (None, b"", b"MATLAB 5.0"):
        if content is not None:
            wrong.write_bytes(content)
        for option in ("niqe_parameters", "nrqm_model"):
            with pytest.raises(InputError, match=r"wrong\.mat"):
                evaluated(tmp_path / "set", metrics=("pi",), **{option: wrong})


def test_self_check(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRUP_NIQE_PARAMETERS", str(shared / "reference/niqe_modelparameters.mat"))
    checks = self_check.run(shared / "reference/calibration")
    assert len(checks) == 15
    assert all(check.agrees for check in checks if check.metric == "niqe")
    assert not any(check.agrees for check in checks if check.metric == "pi")
    verdict = self_check.verdict(checks)
    assert "reproduces the official scores of NIQE" in verdict
    assert "could not compute NRQM, PI" in verdict


def test_self_check_without_its_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data"):
        self_check.fetch_images(tmp_path, offline=True)
    with pytest.raises(InputError, match="not the calibration image"):
        self_check.run(tmp_path)


def test_self_check_fetches_its_images(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "is_offline", lambda: False)
    monkeypatch.setattr(self_check, "SOURCE", (shared / "reference/calibration/dist_dir").as_uri())
    folder = self_check.fetch_images(tmp_path / "images")
    assert sorted(path.name for path in folder.iterdir()) == list(self_check.CHECKSUMS)
    monkeypatch.setattr(self_check, "SOURCE", (shared / "reference/calibration/ref_dir").as_uri())
    (folder / "I03.bmp").unlink()
    with pytest.raises(InputError, match="not the expected file"):
        self_check.fetch_images(folder)


def test_the_posters_table() -> None:
    table = PROTOCOLS["poster"].published
    assert table is not None
    assert table.scores["MESRGAN"] == {"psnr_rgb": 24.39, "ssim_rgb": 0.95, "pi": 3.13, "rmse": 15.86}


def test_protocols_that_the_options_name_are_those_that_there_are() -> None:
    assert get_args(ProtocolName) == tuple(PROTOCOLS)
    assert get_args(PublishedName) == tuple(name for name, protocol in PROTOCOLS.items() if protocol.published)
