"""Fidelity: which weights may be blended, and that the blend is the one between folded networks."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sr_cli import datasets, models, weights
from sr_cli.errors import UsageError, WeightsError
from sr_cli.inference import Upscaler
from sr_cli.metrics.colour import crop_border, luma
from sr_cli.metrics.psnr import psnr
from sr_cli.weights import manifest
from sr_cli.weights.blend import blend
from tests.networks import SMALL, with_weights


def fine_tuned(generator: models.Generator, amount: float = 0.05, seed: int = 7) -> models.Generator:
    """A copy moved a little, as training would; BatchNorm's statistics with it."""
    tuned = models.create(generator.config).eval()
    noise = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in generator.state_dict().items():
        if value.is_floating_point():
            value = value * (1 + amount * torch.randn(value.shape, generator=noise))
        state[name] = value
    tuned.load_state_dict(state)
    return tuned


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SRUP_HOME", str(tmp_path / "srup"))
    (tmp_path / "srup" / "weights").mkdir(parents=True)
    return tmp_path / "srup"


def register(home: Path, name: str, stages: dict[str, tuple[models.Generator, str | None]], default: str) -> None:
    """Write weights and the user's manifest: for each stage its generator and the stage it came from."""
    config = next(iter(stages.values()))[0].config
    checksums: dict[str, str] = {}
    entries: dict[str, Any] = {}
    for stage, (generator, parent) in stages.items():
        path = home / "weights" / f"{name}-{stage}.safetensors"
        save_file(generator.state_dict(), path)
        data = path.read_bytes()
        checksums[stage] = hashlib.sha256(data).hexdigest()
        entries[stage] = {
            "file": path.name,
            "sha256": checksums[stage],
            "size": len(data),
            "overlap": 8 if stage == "pixel" else 12,
            "parent_sha256": checksums.get(parent, parent) if parent else None,
            "licence": "MIT",
        }
    manifest = home / "manifest.json"
    document = json.loads(manifest.read_text()) if manifest.exists() else {"schema": 1, "models": {}}
    document["models"][name] = {
        "summary": "small",
        "config": config.to_dict(),
        "scale": 4,
        "default_stage": default,
        "stages": entries,
    }
    manifest.write_text(json.dumps(document))


@pytest.fixture
def pair(home: Path) -> tuple[models.Generator, models.Generator]:
    """A model `mine` with a pixel stage and a GAN stage fine-tuned from it; gives (gan, pixel)."""
    pixel = with_weights(SMALL["mesrgan"])
    gan = fine_tuned(pixel)
    register(home, "mine", {"pixel": (pixel, None), "gan": (gan, "pixel")}, default="pixel")
    return gan, pixel


PICTURE = np.random.default_rng(5).random((11, 14, 3), np.float32)


def enlarge(model: str, **options: Any) -> np.ndarray:
    return Upscaler(model, device="cpu", backend="eager", overlap="full", **options).upscale(PICTURE).pixels


@pytest.mark.usefixtures("pair")
def test_ends_are_the_two_stages_and_the_default_stage_does_not_matter() -> None:
    assert np.array_equal(enlarge("mine", fidelity=0.0), enlarge("mine:gan"))
    assert np.array_equal(enlarge("mine", fidelity=1.0), enlarge("mine:pixel"))
    half = enlarge("mine", fidelity=0.5)
    assert np.array_equal(half, enlarge("mine:gan", fidelity=0.5))
    assert np.abs(half - enlarge("mine:gan")).max() > 1e-3 < np.abs(half - enlarge("mine:pixel")).max()


@pytest.mark.usefixtures("pair")
def test_each_fidelity_has_an_identity_of_its_own() -> None:
    upscalers = [Upscaler("mine", device="cpu", fidelity=f) for f in (0.0, 0.25, 1.0)]
    assert len({u.weights_sha256 for u in upscalers}) == 3
    assert [u.fidelity for u in upscalers] == [0.0, 0.25, 1.0]
    expected = "fidelity 0.25: between mine:gan (0, crisp) and mine:pixel (1, faithful)"
    assert str(upscalers[1].blend) == expected
    assert upscalers[0].overlap == 12  # the larger of the two


def test_a_path_that_the_manifest_knows(home: Path, pair: object) -> None:
    path = str(home / "weights" / "mine-gan.safetensors")
    assert np.array_equal(enlarge(path, fidelity=0.5), enlarge("mine", fidelity=0.5))
    path = str(home / "weights" / "mine-pixel.safetensors")
    assert np.array_equal(enlarge(path, fidelity=0.5), enlarge("mine", fidelity=0.5))


def test_the_bare_name_keeps_its_stage(home: Path) -> None:
    """Photo and GAN stages that were both made from the pixel stage: fidelity 1 is what the bare name stands for."""
    pixel = with_weights(SMALL["mesrgan"])
    photo, gan = fine_tuned(pixel, seed=1), fine_tuned(pixel, seed=2)
    register(home, "mine", {"pixel": (pixel, None), "photo": (photo, "pixel"), "gan": (gan, "pixel")}, "photo")
    assert np.array_equal(enlarge("mine", fidelity=1.0), enlarge("mine"))
    assert np.array_equal(enlarge("mine", fidelity=1.0), enlarge("mine:photo"))
    assert np.array_equal(enlarge("mine:pixel", fidelity=1.0), enlarge("mine:pixel"))
    assert np.array_equal(enlarge("mine:gan", fidelity=1.0), enlarge("mine:pixel"))
    assert np.array_equal(enlarge("mine", fidelity=0.0), enlarge("mine:gan"))


def test_stages_of_unknown_descent_are_not_blended(home: Path) -> None:
    pixel = with_weights(SMALL["mesrgan"])
    register(home, "mine", {"pixel": (pixel, None), "gan": (fine_tuned(pixel), "1" * 64)}, "pixel")
    with pytest.raises(UsageError, match="nothing says that mine:gan and mine:pixel come from the same weights"):
        enlarge("mine", fidelity=0.5)


def test_a_run_by_its_folder(home: Path, tmp_path: Path) -> None:
    pixel = with_weights(SMALL["mesrgan"])
    save_file(pixel.state_dict(), tmp_path / "pixel.best.safetensors")
    parent = hashlib.sha256((tmp_path / "pixel.best.safetensors").read_bytes()).hexdigest()
    info = {"srup": json.dumps({"stage": "gan", "parent_sha256": parent})}
    save_file(fine_tuned(pixel).state_dict(), tmp_path / "gan.best.safetensors", metadata=info)
    assert np.array_equal(enlarge(str(tmp_path), fidelity=1.0), enlarge(str(tmp_path)))
    assert np.array_equal(enlarge(str(tmp_path), fidelity=0.0), enlarge(f"{tmp_path}:gan"))


def test_a_gan_stage_made_from_the_photo_stage_is_blended_with_that(home: Path) -> None:
    pixel = with_weights(SMALL["mesrgan"])
    photo = fine_tuned(pixel, seed=1)
    gan = fine_tuned(photo, seed=2)
    register(home, "mine", {"pixel": (pixel, None), "photo": (photo, "pixel"), "gan": (gan, "photo")}, "photo")
    assert np.array_equal(enlarge("mine", fidelity=1.0), enlarge("mine:photo"))


@pytest.mark.parametrize("name", SMALL)
def test_without_batchnorm_folding_and_blending_commute(name: str) -> None:
    """Where the two orders could differ, only the folded one is right; where they can't, they agree."""
    pixel = with_weights(SMALL[name])
    gan = fine_tuned(pixel)
    mixed = models.create(SMALL[name]).eval()
    theirs = pixel.state_dict()
    mixed.load_state_dict(
        {k: torch.lerp(v, theirs[k], 0.3) if v.is_floating_point() else v for k, v in gan.state_dict().items()}
    )
    rgb = torch.from_numpy(PICTURE).permute(2, 0, 1)[None]
    with torch.inference_mode():
        difference = (blend(gan, pixel, 0.3)(rgb) - mixed(rgb)).abs().max()
    assert (difference > 1e-4) if name == "srgan" else (difference < 1e-5)


def test_blending_after_folding_ignores_a_scale_that_batchnorm_divides_out() -> None:
    """Ten times the weights before a BatchNorm are the same network, so they must give the same blend."""
    pixel = with_weights(SMALL["srgan"])
    gan = fine_tuned(pixel)
    state = {name: value.clone() for name, value in gan.state_dict().items()}
    for name in [n for n in state if n.endswith("running_mean")]:
        norm = name.removesuffix(".running_mean")
        conv = norm.replace("norm", "conv")
        state[f"{conv}.weight"] *= 10
        state[name] *= 10
        # The variance grows a hundredfold; epsilon does not, so it is made up for.
        state[f"{norm}.running_var"] = (state[f"{norm}.running_var"] + 1e-5) * 100 - 1e-5
    scaled = models.create(SMALL["srgan"]).eval()
    scaled.load_state_dict(state)
    rgb = torch.from_numpy(PICTURE).permute(2, 0, 1)[None]
    with torch.inference_mode():
        assert (scaled(rgb) - gan(rgb)).abs().max() < 1e-4
        assert (blend(scaled, pixel, 0.5)(rgb) - blend(gan, pixel, 0.5)(rgb)).abs().max() < 1e-4


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("fidelity", [-0.1, 1.01, float("nan")])
def test_fidelity_outside_0_to_1(fidelity: float) -> None:
    with pytest.raises(UsageError, match="between 0"):
        enlarge("mine", fidelity=fidelity)


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("model", ["bicubic", "lanczos"])
def test_fidelity_of_what_has_no_weights(model: str) -> None:
    with pytest.raises(UsageError, match="--fidelity"):
        enlarge(model, fidelity=0.5)


def test_no_gan_stage(home: Path) -> None:
    register(home, "mine", {"pixel": (with_weights(SMALL["mesrgan"]), None)}, "pixel")
    for model in ("mine", "mesrgan-poster"):
        with pytest.raises(UsageError, match=rf"{model} has none \(stages: (pixel|none yet)\)"):
            enlarge(model, fidelity=0.5)


@pytest.mark.parametrize("parent", [None, "0" * 64])
def test_a_parent_that_is_not_known(home: Path, parent: str | None) -> None:
    register(home, "mine", {"gan": (with_weights(SMALL["mesrgan"]), parent)}, "gan")
    message = r"not known what mine:gan was fine-tuned from|000000000000"
    with pytest.raises((UsageError, WeightsError), match=message):
        enlarge("mine", fidelity=0.5)


def test_a_parent_of_another_shape(home: Path) -> None:
    small = with_weights(SMALL["mesrgan"])
    register(home, "base", {"pixel": (with_weights(replace(SMALL["mesrgan"], blocks=1)), None)}, "pixel")
    checksum = hashlib.sha256((home / "weights" / "base-pixel.safetensors").read_bytes()).hexdigest()
    register(home, "mine", {"gan": (small, checksum)}, "gan")
    with pytest.raises(WeightsError, match="different networks"):
        enlarge("mine", fidelity=0.5)


def test_a_file_that_no_manifest_knows(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "stray.safetensors"
    save_file(with_weights(SMALL["mesrgan"]).state_dict(), path)
    with pytest.raises(UsageError, match="no manifest knows"):
        weights.load_blend(path, 0.5)


@pytest.mark.usefixtures("pair")
def test_srup_upscale_takes_it(srup_here: Any, home: Path, tmp_path: Path) -> None:
    Image.fromarray((PICTURE * 255).astype(np.uint8)).save(tmp_path / "in.png")
    for name, options in {"half": ["--fidelity", "0.5"], "gan": ["--fidelity", 0, "--ensemble"]}.items():
        done = srup_here("upscale", "in.png", "-m", "mine", *options, "-o", f"{name}.png", SRUP_HOME=str(home))
        assert done.returncode == 0, done.stderr
    expected = Upscaler("mine", device="cpu", fidelity=0.5)(Image.open(tmp_path / "in.png"))
    assert np.array_equal(Image.open(tmp_path / "half.png"), expected)
    assert "between mine:gan (0, crisp) and mine:pixel (1, faithful)" in done.stderr
    refused = srup_here("upscale", "in.png", "-m", "bicubic", "--fidelity", "0.5", SRUP_HOME=str(home))
    assert refused.returncode == 2 and "bicubic has none" in refused.stderr
    for fidelity in (0.2, 0.5):
        assert srup_here("upscale", "in.png", "-m", "mine", "--fidelity", fidelity, SRUP_HOME=str(home)).returncode == 0
    assert {path.name for path in tmp_path.glob("in_*")} == {"in_mine_f0.2_x4.png", "in_mine_f0.5_x4.png"}
    for arguments in (["missing.png"], ["in.png", "-m", "nonsense"], ["in.png", "-m", "bicubic"]):
        refused = srup_here("upscale", *arguments, "--fidelity", "1.5", SRUP_HOME=str(home))
        assert refused.returncode == 2 and "--fidelity" in refused.stderr and "1.5" in refused.stderr


@pytest.mark.usefixtures("pair")
def test_srup_eval_takes_it(srup_here: Any, home: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    Image.fromarray((np.random.default_rng(0).random((48, 64, 3)) * 255).astype(np.uint8)).save(tmp_path / "set/a.png")
    scores = []
    for options in (["--fidelity", "0"], ["--fidelity", "1"], ["--fidelity", "1", "--ensemble"]):
        done = srup_here(
            "eval", "--data", "set", "-m", "mine", "-m", "bicubic", "--metrics", "psnr_y", "--json", *options,
            SRUP_HOME=str(home),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert document["fidelity"] == float(options[1]) and document.get("ensemble", False) == (len(options) == 3)
        scores.append([result["metrics"]["psnr_y"] for result in document["results"]])
    assert len({row[0] for row in scores}) == 3 and len({row[1] for row in scores}) == 1


def _pairs() -> list[str]:
    """The bundled models that have a GAN stage whose parent is bundled too."""
    built_in = manifest.read_file(manifest.builtin_path(), manifest.PACKAGE / "bundled")
    names = []
    for name, entry in built_in.models.items():
        gan = entry.stages.get("gan")
        if gan and gan.parent_sha256 and built_in.by_sha256(gan.parent_sha256):
            names.append(name)
    return names


def _mean_psnr(shared: Path, spec: str, fidelity: float, images: int) -> float:
    """PSNR-Y of the middle 240x240 pixels of the smallest images of Set14, in dB."""
    pairs = datasets.from_folder(shared / "data" / "test" / "Set14").pairs
    upscaler = Upscaler(spec, device="cpu", fidelity=fidelity, backend="eager", offline=True)
    scores = []
    for pair in sorted(pairs, key=lambda pair: np.prod(Image.open(pair.hr).size))[:images]:
        high, low = datasets.load(pair)
        assert low is not None
        top, left = ((side - 60) // 2 for side in low.shape[:2])
        high = high[4 * top : 4 * (top + 60), 4 * left : 4 * (left + 60)]
        output = upscaler.upscale(low[top : top + 60, left : left + 60]).pixels
        lumas = [crop_border(luma(picture), 4) for picture in (output, high)]
        scores.append(psnr(lumas[0], lumas[1]))
    return float(np.mean(scores))


@pytest.mark.parametrize("model", _pairs())
@pytest.mark.parametrize("images", [2, pytest.param(14, marks=pytest.mark.slow)])
def test_more_fidelity_is_more_psnr(shared: Path, model: str, images: int) -> None:
    """From 0 to 1 in quarters, on Set14, within 0.15 dB: the mean of two networks may err less than either."""
    means = [_mean_psnr(shared, f"{model}:gan", fidelity, images) for fidelity in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert all(later > earlier - 0.15 for earlier, later in itertools.pairwise(means)), means
    assert means[-1] > means[0]


@pytest.mark.parametrize("model", _pairs())
def test_between_the_bare_name_and_its_gan_stage_are_good_networks(shared: Path, model: str) -> None:
    """Stages that come from the same weights are joined by a straight line without a dip."""
    crisp, half, faithful = (_mean_psnr(shared, model, fidelity, 2) for fidelity in (0.0, 0.5, 1.0))
    assert half > (crisp + faithful) / 2
