"""`srup eval` on inputs as photos come to us, and the metrics that compare feature maps."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from sr_cli import datasets
from sr_cli.datasets import degradation
from sr_cli.errors import UsageError, WeightsError
from sr_cli.evaluate import job as evaluate
from sr_cli.evaluate import learned
from sr_cli.evaluate.learned import MetricFiles
from sr_cli.evaluate.low_resolution import LowResolution
from sr_cli.evaluate.options import EvalOptions
from sr_cli.evaluate.protocols import STANDARD
from sr_cli.metrics import features, lpips_dists
from tests.test_training_parts import picture, squeezenet_weights


def as_jpeg(rgb: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Through a file, with Pillow's own choice of everything else."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(picture(128, 96, i)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def squeezenet(tmp_path: Path) -> Path:
    path = tmp_path / "squeezenet.npz"
    np.savez(path, **{key: value.numpy() for key, value in squeezenet_weights().items()})
    return path


def test_jpeg_qualities_are_used_by_turns() -> None:
    hr = picture(96, 128, 0)
    low = LowResolution(jpeg=(40, 90))
    for position, quality in ((0, 40), (1, 90), (2, 40)):
        expected = as_jpeg(datasets.reduce_image(hr), quality)
        assert np.array_equal(low.make(hr, None, STANDARD, position, "a"), expected)
    shipped = picture(24, 32, 1)
    assert np.array_equal(low.make(hr, shipped, STANDARD, 0, "a"), as_jpeg(shipped, 40))


def test_degradation_depends_on_seed_and_name_alone() -> None:
    hr = picture(96, 128, 0)

    def made(seed: int, position: int, name: str) -> NDArray[Any]:
        return LowResolution("photo", seed=seed).make(hr, None, STANDARD, position, name)

    draws = {seed: made(seed, 0, "a") for seed in range(12)}
    assert all(np.array_equal(draws[seed], made(seed, 5, "a")) for seed in range(3))
    assert len({draw.tobytes() for draw in draws.values()}) > 6, "one in five is clean, the others differ"
    assert len({made(0, 0, name).tobytes() for name in "abcdef"}) > 3
    assert {draw.shape for draw in draws.values()} == {(24, 32, 3)}


_NEVER = degradation.Step(0, (1, 1))
UNTOUCHED = degradation.Degradation(0, _NEVER, 1, _NEVER, _NEVER, _NEVER, _NEVER, _NEVER, 1, _NEVER, 0, _NEVER)
"""A reduction and no other step."""


def test_whole_photos_keep_their_borders() -> None:
    """A periodic blur would carry the dark side over to the bright one."""
    hr = np.zeros((64, 128, 3), np.uint8)
    hr[:, 64:] = 255
    blurred = replace(UNTOUCHED, blur=degradation.Step(1, (2.4, 2.4)))
    rng = np.random.default_rng(0)
    assert degradation.photo(hr, rng, blurred)[:, -1].min() < 250
    assert degradation.whole_photo(hr, rng, blurred)[:, -1].min() >= 254


def test_without_blur_and_noise_a_whole_photo_is_a_jpeg_of_its_reduction() -> None:
    """The blocks of JPEG start at the picture's corner, as they do in a file."""
    hr = picture(256, 320, 3)
    settings = replace(UNTOUCHED, bicubic=1, final_jpeg=degradation.Step(1, (60, 60)), subsampling=1)
    found = degradation.whole_photo(hr, np.random.default_rng(0), settings).astype(int)
    expected = as_jpeg(datasets.reduce_image(hr), 60).astype(int)
    assert np.abs(found - expected)[18:-18, 18:-18].max() <= 1, "away from the borders, which are mirrored"


def test_the_table_of_a_photos_case(photos: Path, squeezenet: Path, tmp_path: Path, srup_here: Any) -> None:
    arguments = ["--data", photos, "-m", "bicubic", "--metrics", "psnr,features", "--feature-weights", squeezenet]
    done = srup_here("eval", *arguments, "--input-jpeg", "60", "--input-jpeg", "90", "--save-images", tmp_path / "out",
                     "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["input"] == {"degrade": "none", "jpeg": [60, 90], "seed": 0}
    assert "LR saved as JPEG 60, 90 by turns" in document["convention"]
    (result,) = document["results"]
    assert set(result["metrics"]) == {"psnr_y", "psnr_rgb", "features"}
    assert result["seconds_per_megapixel"] > 0
    assert result["multiplications"] is None
    loss = features.FeatureLoss(features.SqueezeNet(squeezenet_weights()), "l1", relative=True)
    for i, image in enumerate(result["images"]):
        output = np.asarray(Image.open(tmp_path / f"out/photos/bicubic/{image['name']}"))
        pair = [torch.tensor(rgb).permute(2, 0, 1)[None] / 255 for rgb in (output, picture(128, 96, i))]
        assert image["metrics"]["features"] == pytest.approx(loss(*pair).item(), rel=1e-4)
    clean = json.loads(srup_here("eval", *arguments, "--json").stdout)
    assert "input" not in clean
    assert clean["results"][0]["metrics"]["psnr_y"] > result["metrics"]["psnr_y"]
    shown = srup_here("eval", *arguments, "--degrade", "photo", "--seed", "3").stdout
    assert "s/MP" in shown
    assert "stage" in shown
    assert "degraded as photos are (seed 3)" in shown


def test_a_network_is_shown_with_its_stage_and_cost(photos: Path, srup_here: Any) -> None:
    done = srup_here("eval", "--data", photos, "-m", "mesrgan", "--metrics", "psnr_y", "--json")
    (result,) = json.loads(done.stdout)["results"]
    assert (result["model"], result["multiplications"]) == ("mesrgan", 1_114_432)
    assert result["stage"] == "photo"


def test_a_model_of_another_scale_is_refused_at_once(photos: Path, tmp_path: Path, srup_here: Any) -> None:
    from safetensors.torch import save_file

    from sr_cli import models
    from sr_cli.models.rrdbnet import RrdbnetConfig

    network = models.create(RrdbnetConfig(features=8, blocks=1, growth=4, scale=2))
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, tmp_path / "double.safetensors")
    with pytest.raises(UsageError, match=r"double\.safetensors enlarges by 2, and eval measures enlargement by 4"):
        evaluate.run(EvalOptions(models=(str(tmp_path / "double.safetensors"),), data=(photos,)), lambda event: None)
    done = srup_here("eval", "--data", photos, "-m", tmp_path / "double.safetensors", "--report", tmp_path / "a.html")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_weights_that_cannot_be_had_are_reasons(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    found = learned.load(("features", "lpips", "dists"), MetricFiles(), offline=True)
    assert not found.measures
    assert "--feature-weights" in found.reasons["features"]
    for name, file, size in (("lpips", "alexnet-owt-7be5be79.pth", 233), ("dists", "vgg16-397923af.pth", 528)):
        assert file in found.reasons[name]
        assert f"{size} MB" in found.reasons[name]
        assert "offline" in found.reasons[name]


def test_a_given_file_must_be_right(tmp_path: Path) -> None:
    (tmp_path / "broken.npz").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"broken\.npz"):
        learned.load(("features",), MetricFiles(feature_weights=tmp_path / "broken.npz"))


def test_small_pictures_have_no_feature_distance(squeezenet: Path) -> None:
    measure = learned.load(("features",), MetricFiles(feature_weights=squeezenet)).measures["features"]
    with pytest.raises(ValueError, match="32 pixels"):
        measure(picture(20, 40, 0), picture(20, 40, 0))
    assert measure(picture(40, 40, 0), picture(40, 40, 0)) == 0


@pytest.mark.parametrize("name", ["lpips", "dists"])
def test_lpips_and_dists_are_torchmetrics(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With random classifiers in place of those that would be downloaded, both ways see the same one."""
    import torchmetrics.functional.image as reference
    import torchvision.models
    from torchmetrics.functional.image import dists
    from torchvision.models.alexnet import AlexNet
    from torchvision.models.vgg import VGG, cfgs, make_layers

    class Classifier:
        def __init__(self, **_: object) -> None:
            with torch.device("meta"):  # its dense layers, which nobody needs, take no memory
                whole = AlexNet() if name == "lpips" else VGG(make_layers(cfgs["D"]))
            torch.manual_seed(0)
            self.features = whole.features.to_empty(device="cpu")
            for parameter in self.features.parameters():
                nn.init.normal_(parameter, std=0.05)

    monkeypatch.setattr(torchvision.models, "alexnet", Classifier)
    monkeypatch.setattr(dists, "vgg16", Classifier)
    measure = lpips_dists.load(name)
    output, target = picture(96, 80, 0), picture(96, 80, 1)
    a, b = (torch.tensor(rgb).permute(2, 0, 1)[None].float() / 255 for rgb in (output, target))
    expected = {
        "lpips": lambda: reference.learned_perceptual_image_patch_similarity(a, b, net_type="alex", normalize=True),
        "dists": lambda: reference.deep_image_structure_and_texture_similarity(a, b).mean(),
    }[name]()
    assert measure(output, target) == pytest.approx(expected.item(), rel=1e-4)
    assert measure(output, target) > 0.001
    assert measure(target, target) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match=name.upper()):
        measure(output[:40], target[:40])
