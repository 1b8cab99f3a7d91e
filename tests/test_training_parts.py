"""The parts of training: data, degradations, losses, discriminator, configuration, plot."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision import models as torchvision

from sr_cli import datasets, models
from sr_cli.datasets import degradation
from sr_cli.errors import InputError, UsageError, WeightsError
from sr_cli.inference import Processor
from sr_cli.metrics import features
from sr_cli.models import mesrgan, srgan
from sr_cli.models.discriminator import Discriminator, PatchDiscriminator, UnetDiscriminator
from sr_cli.training import checkpoint, config, data, job, plot, recipes, stages, teachers
from sr_cli.training.losses import adversarial, pixel
from sr_cli.training.options import TrainOptions
from sr_cli.training.run import Run
from tools import show_degradations


def dataset(images: list[data.CachedImage], *drawing: int, **more: Any) -> data.PatchDataset:
    return data.PatchDataset(images, data.PatchDrawing(*drawing, **more))


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Blocks of random colours, so that nothing is flat and nothing repeats."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    large = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(large)


@pytest.fixture
def images(tmp_path: Path) -> list[data.CachedImage]:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, (height, width) in enumerate([(130, 200), (161, 97), (64, 64)]):
        Image.fromarray(picture(height, width, index)).save(folder / f"{index}.png")
    found, skipped = data.load_images(data.find_images([folder]), tmp_path / "cache", 64, pytest.fail)
    assert skipped == 0
    return found


# --- data


def test_lr_is_made_as_for_evaluation(images: list[data.CachedImage]) -> None:
    for image in images:
        assert np.array_equal(image.lr, datasets.reduce_image(np.asarray(image.hr)))


def test_patches_depend_on_seed_step_and_position_alone(images: list[data.CachedImage]) -> None:
    whole = dataset(images, 1, 4, 32)
    assert torch.equal(whole[7][1], dataset(images, 1, 4, 32)[7][1])
    assert not torch.equal(whole[7][1], whole[8][1])
    assert not torch.equal(whole[7][1], dataset(images, 2, 4, 32)[7][1])
    shares = [data.PatchDataset(images, data.PatchDrawing(1, 4, 32), rank, world=2)[7] for rank in range(2)]
    for which in range(2):
        assert torch.equal(torch.stack([s[which] for s in shares], 1).flatten(0, 1), whole[7][which])


def test_a_patch_and_its_reduction_show_the_same(images: list[data.CachedImage]) -> None:
    lr, hr, _ = dataset(images, 0, 16, 64)[0]
    assert lr.shape == (16, 3, 16, 16)
    assert hr.shape == (16, 3, 64, 64)
    for low, high in zip(lr, hr, strict=True):
        reduced = datasets.reduce_image(high.permute(1, 2, 0).contiguous().numpy())
        # Only the border, where the filter saw pixels outside the patch, may differ much; elsewhere it is
        # how Pillow rounds and clips between its two passes, whose order a turned patch exchanges.
        difference = np.abs(reduced.astype(int) - low.permute(1, 2, 0).numpy().astype(int))[2:-2, 2:-2]
        assert difference.max() <= 8
        assert difference.mean() < 0.5


def test_batches_from_the_device_are_those_from_the_workers(images: list[data.CachedImage]) -> None:
    patches = dataset(images, 3, 8, 32, min_detail=2.0)
    resident = data.ResidentPatches(patches, torch.device("cpu"))
    for step in range(5):
        for mine, theirs in zip(resident[step][:2], patches[step][:2], strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_give_the_steps_in_order(images: list[data.CachedImage], workers: int) -> None:
    patches = dataset(images, 3, 2, 32, degrade="photo")
    for step, (lr, hr, _) in enumerate(data.batches(patches, 4, 9, workers, torch.device("cpu")), 4):
        assert torch.equal(lr, patches[step][0])
        assert torch.equal(hr, patches[step][1])
    assert step == 8


def test_degraded_patches_stay_in_place(images: list[data.CachedImage]) -> None:
    clean, damaged = (dataset(images, 5, 32, 64, degrade=kind) for kind in ("none", "photo"))
    assert torch.equal(clean[0][1], damaged[0][1])
    error = (clean[0][0].float() - damaged[0][0].float()).abs().mean((1, 2, 3))
    shuffled = (clean[0][0].float() - damaged[0][0].roll(1, 0).float()).abs().mean((1, 2, 3))
    assert (error < shuffled).all()
    assert 0.05 < (error == 0).float().mean() < 0.5  # some patches are clean


def test_a_photo_is_used_at_several_sizes(tmp_path: Path) -> None:
    Image.fromarray(picture(160, 200)).save(tmp_path / "a.png")
    Image.fromarray(picture(100, 72)).save(tmp_path / "b.png")
    notes: list[str] = []
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    found, skipped = data.load_images(paths, tmp_path / "cache", 64, notes.append, sizes=(1.0, 0.5))
    assert [image.hr.shape for image in found] == [(160, 200, 3), (80, 100, 3), (100, 72, 3)]
    assert skipped == 0 and not notes  # half of b.png is too small, b.png itself is not
    small = Image.open(tmp_path / "a.png").resize((100, 80), Image.Resampling.BICUBIC)
    assert np.array_equal(found[1].hr, np.asarray(small))
    assert np.array_equal(found[1].lr, datasets.reduce_image(np.asarray(small)))


# --- teachers


class FakeTeacher:
    """Enlarges by repetition, and counts."""

    name = "fake"
    weights_sha256 = "5" * 64

    def __init__(self) -> None:
        self.enlarged = 0

    def upscale(self, lr: np.ndarray) -> SimpleNamespace:
        self.enlarged += 1
        return SimpleNamespace(pixels=lr.repeat(4, 0).repeat(4, 1))


def test_a_teacher_enlarges_each_photo_once(images: list[data.CachedImage]) -> None:
    first, second = FakeTeacher(), FakeTeacher()
    counted: list[int] = []
    taught = teachers.teach(images, first, counted.append)
    assert taught is not None and first.enlarged == len(images)
    assert counted == list(range(len(images) + 1))
    assert all(np.array_equal(image.taught, image.lr.repeat(4, 0).repeat(4, 1)) for image in taught)
    assert teachers.teach(images, second, lambda *_: None) == taught and second.enlarged == 0
    other = FakeTeacher()
    other.weights_sha256 = "6" * 64
    teachers.teach(images, other, lambda *_: None)
    assert other.enlarged == len(images)


def test_degraded_reductions_are_made_once_and_differ(images: list[data.CachedImage]) -> None:
    degraded = list(data.degraded_images(images, 2, seed=1))
    assert len({image.lr_path for image in degraded}) == 2 * len(images)
    for clean, pair in zip(images, zip(degraded[::2], degraded[1::2], strict=True), strict=True):
        assert all(copy.hr_path == clean.hr_path and copy.lr.shape == clean.lr.shape for copy in pair)
        assert not np.array_equal(pair[0].lr, pair[1].lr)
        for copy in pair:  # it shows the same in the same place
            apart, elsewhere = (np.abs(lr.astype(int) - clean.lr).mean() for lr in (copy.lr, np.roll(copy.lr, 5, 0)))
            assert apart < elsewhere
    made = {image.lr_path: image.lr_path.stat().st_mtime_ns for image in degraded}
    assert list(data.degraded_images(images, 2, seed=1)) == degraded
    assert {path: path.stat().st_mtime_ns for path in made} == made
    # The teacher enlarges what it is shown.
    taught = teachers.teach(degraded, FakeTeacher(), lambda *_: None)
    assert taught is not None
    assert all(np.array_equal(image.taught, image.lr.repeat(4, 0).repeat(4, 1)) for image in taught)


def test_a_stopped_teacher_keeps_what_it_made(images: list[data.CachedImage]) -> None:
    first, second = FakeTeacher(), FakeTeacher()
    degraded = data.degraded_images(images, 1, seed=1)
    assert teachers.teach(degraded, first, lambda *_: None, lambda: first.enlarged == 1) is None
    assert len(list(degraded)) == len(images) - 2  # no photo is degraded before its turn: a large one takes seconds
    assert teachers.teach(data.degraded_images(images, 1, seed=1), second, lambda *_: None) is not None
    assert (first.enlarged, second.enlarged) == (1, len(images) - 1)


def test_patches_of_the_teachers_picture_lie_on_those_of_the_photo(images: list[data.CachedImage]) -> None:
    taught = teachers.teach(images, FakeTeacher(), lambda *_: None)
    patches = dataset(taught, 3, 8, 32)
    lr, hr, pictures = patches[2]
    assert torch.equal(hr, dataset(images, 3, 8, 32)[2].hr)
    assert torch.equal(pictures, lr.repeat_interleave(4, 2).repeat_interleave(4, 3))
    resident = data.ResidentPatches(patches, torch.device("cpu"))[2]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(resident, patches[2], strict=True))


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 0.2), (0.75, 0.5), (1.0, 0.6)])
def test_the_target_mixes_original_and_teacher(weight: float, expected: float) -> None:
    recipe = config.override(config.TrainConfig(), {"teacher_weight": weight})
    stage = stages.PixelStage("pixel", recipe, models.create(models.PRESETS["mesrgan"]), torch.device("cpu"), None)
    full = torch.ones(1, 3, 16, 16)
    patches = data.Patches(torch.ones(1, 3, 4, 4), 0.2 * full, 0.6 * full)
    assert torch.allclose(stage.target(patches), expected * full)
    assert torch.equal(stage.target(patches._replace(taught=None)), patches.hr)


@pytest.mark.parametrize(("compared", "expected"), [("target", 0.6), ("original", 0.2)])
def test_a_stage_without_discriminator_compares_features_too(compared: str, expected: float) -> None:
    class Seen(features.FeatureLoss):
        def forward(self, output: Tensor, target: Tensor, step: int = 0) -> Tensor:
            seen.append(float(target.mean()))
            return (output - target).abs().mean()

    seen: list[float] = []
    own = {"feature_weight": 2.0, "feature_target": compared, "content_weight": 0.0}
    recipe = config.override(config.TrainConfig(), {"pixel": own})
    net = Seen(features.FeatureNet(), "l1", relative=True)
    stage = stages.PixelStage("photo", recipe, models.create(models.PRESETS["mesrgan"]), torch.device("cpu"), net)
    full = torch.ones(1, 3, 16, 16)
    scalars = stage.step(0, data.Patches(0.5 * torch.ones(1, 3, 4, 4), 0.2 * full, 0.6 * full))
    assert seen == [pytest.approx(expected)]
    assert scalars["loss"] == pytest.approx(2 * float(scalars["feature"]))
    assert not scalars["bad"]


class Side(features.FeatureNet):
    """Its one map is the image times its width, so that black and white are as far apart as it is wide."""

    def forward(self, rgb: Tensor) -> features.Maps:
        return features.Maps(rgb, [rgb * rgb.shape[-1]])


def test_features_are_compared_at_each_of_the_sizes() -> None:
    loss = features.FeatureLoss(Side(), "l1", relative=False, sizes=(1, 2, 0.5))
    black, white = torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)
    assert loss(black, white).item() == pytest.approx((16 + 32 + 8) / 3, rel=1e-3)


def test_features_can_be_compared_at_one_size_drawn_for_each_step() -> None:
    loss = features.FeatureLoss(Side(), "l1", relative=False, sizes=(2, 0.5, 1), drawn=True)
    black, white = torch.zeros(1, 3, 100, 100), torch.ones(1, 3, 100, 100)
    sides = [loss(black, white, step).item() for step in range(50)]
    assert min(sides) > 49 and max(sides) < 201 and len({round(side) for side in sides}) > 25
    assert sides == [loss(black, white, step).item() for step in range(50)]


def test_the_stages_compare_at_their_own_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "feature_net", lambda *_: features.FeatureNet())
    sizes = {"feature_sizes": [1, 0.5], "feature_sizes_drawn": True}
    values = {"pixel": {"feature_weight": 1.0, **sizes}, "gan": {"feature_weight": 1.0}}
    losses = job._features(config.override(config.TrainConfig(), values), ["pixel", "gan"], TrainOptions())
    assert [(tuple(loss.sizes), loss.drawn) for loss in losses.values() if loss] == [((1, 0.5), True), ((1,), False)]
    small = config.override(config.TrainConfig(patch=16), values)
    with pytest.raises(UsageError, match="needs --patch of at least 32, not 16"):
        job._features(small, ["pixel"], TrainOptions())


@pytest.mark.parametrize(
    ("patch", "own", "message"),
    [
        (16, {"feature_weight": 1.0, "feature_sizes": [0.5]}, "needs --patch of at least 32, not 16"),
        (128, {"texture_weight": 1.0}, "texture_weight needs --feature-net squeezenet1_1, not vgg19"),
    ],
)
def test_what_a_feature_network_cannot_do_is_told_before_its_weights_are_loaded(
    patch: int, own: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "feature_net", lambda *_: pytest.fail("loaded"))
    recipe = config.override(config.TrainConfig(patch=patch), {"pixel": own})
    with pytest.raises(UsageError, match=message):
        job._features(recipe, ["pixel"], TrainOptions())


@pytest.mark.parametrize("even", [True, False])
def test_every_step_keeps_the_upsampler_even(even: bool) -> None:
    recipe = config.TrainConfig(even_upsampler=even, pixel=config.PixelConfig(steps=3, spectral_weight=1.0))
    model = models.create(mesrgan.MesrganConfig(blocks=1, features=8, growth=4))
    model.reset_parameters(torch.Generator().manual_seed(0))
    stage = stages.PixelStage("pixel", recipe, model, torch.device("cpu"), None)
    generator = torch.Generator().manual_seed(1)
    for step in range(3):
        stage.step(step, data.Patches(torch.rand(1, 3, 8, 8, generator=generator), torch.rand(1, 3, 32, 32), None))
    for network in (stage.model, stage.ema.model):
        kernels = [
            conv.weight.detach().sum((2, 3)).unflatten(0, (-1, factor**2)) for conv, factor in network.shuffled_convs()
        ]
        spread = max(float((sums - sums.mean(1, keepdim=True)).abs().max()) for sums in kernels)
        assert (spread < 1e-5) is even


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_batchnorm_trains_the_network_that_is_used(frozen: bool) -> None:
    model = models.create(srgan.SrganConfig(blocks=1, features=8))
    model.reset_parameters(torch.Generator().manual_seed(0))
    recipe = config.override(
        config.TrainConfig(), {"frozen_batchnorm": frozen, "even_upsampler": False, "precision": "fp32"}
    )
    for name, average in model.named_buffers():
        if name.endswith("running_var"):
            average.fill_(0.01)  # far from those of the patches
    drawn = torch.Generator().manual_seed(1)
    patches = data.Patches(torch.rand(2, 3, 8, 8, generator=drawn), torch.rand(2, 3, 32, 32, generator=drawn), None)
    with torch.no_grad():
        used = (model.eval()(patches.lr) - patches.hr).abs().mean().item()
    averages = {name: value.clone() for name, value in model.named_buffers()}
    stage = stages.PixelStage("pixel", recipe, model, torch.device("cpu"), None)
    losses = [stage.step(step, patches)["loss"].item() for step in range(2)]
    assert (losses[0] == pytest.approx(used, rel=5e-6)) is frozen
    assert all(torch.equal(value, averages[name]) for name, value in stage.model.named_buffers()) is frozen
    assert losses[1] != losses[0]  # weights and scales learn either way


def _wide_stage() -> stages.PixelStage:
    values = {"wide_pointwise": True, "ema_decay": 0.0, "even_upsampler": False, "precision": "fp32"}
    model = models.create(mesrgan.MesrganConfig(blocks=1, features=8, growth=4))
    model.reset_parameters(torch.Generator().manual_seed(0))
    recipe = config.override(config.TrainConfig(), values)
    return stages.PixelStage("pixel", recipe, model, torch.device("cpu"), None)


def test_wide_pointwise_layers_fold_into_the_network_that_is_kept() -> None:
    drawn = torch.Generator().manual_seed(1)
    patches = data.Patches(torch.rand(2, 3, 8, 8, generator=drawn), torch.rand(2, 3, 32, 32, generator=drawn), None)
    stage = _wide_stage()
    plain = stage.ema.model
    wide = [name for name, _ in stage.model.named_parameters() if name.endswith(".inner")]
    assert len(wide) == 10 and not any("parametrizations" in name for name in plain.state_dict())
    torch.testing.assert_close(stage.model(patches.lr), plain(patches.lr), rtol=0, atol=1e-5)
    for step in range(3):
        stage.step(step, patches)
    outer = [value for name, value in stage.model.named_parameters() if name.endswith(".outer")]
    assert all(value.abs().max() > 0 for value in outer)
    torch.testing.assert_close(stage.model(patches.lr), plain(patches.lr), rtol=0, atol=1e-5)

    resumed = _wide_stage()
    resumed.restore({name: value.clone() for name, value in stage.tensors().items()})
    losses = [each.step(3, patches)["loss"].item() for each in (stage, resumed)]
    assert losses[0] == losses[1]
    assert all(torch.equal(value, resumed.tensors()[name]) for name, value in stage.tensors().items())


def test_the_discriminator_takes_for_real_what_the_configuration_says() -> None:
    lr, hr, taught = torch.ones(3, 3, 16, 16), torch.zeros(3, 3, 64, 64), torch.ones(3, 3, 64, 64)
    for real, expected in (("originals", [0, 0, 0]), ("teacher", [1, 1, 1]), ("both", [0, 1, 0])):
        recipe = config.override(
            config.TrainConfig(), {"gan": {"real": real, "discriminator_features": 1, "feature_net": "none"}}
        )
        stage = stages.GanStage(recipe, models.create(models.PRESETS["mesrgan"]), torch.device("cpu"), None)
        assert stage.real(data.Patches(lr, hr, taught)).mean((1, 2, 3)).tolist() == expected
        assert torch.equal(stage.real(data.Patches(lr, hr)), hr)


def test_worker_processes_get_paths_instead_of_pixels(images: list[data.CachedImage]) -> None:
    assert images[0].hr.shape == (128, 200, 3)
    copy = pickle.loads(pickle.dumps(images[0]))
    assert len(pickle.dumps(images[0])) < 1000
    assert np.array_equal(copy.hr, images[0].hr)


def test_unusable_images_are_named_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    Image.fromarray(picture(64, 64)).save(folder / "deep" / "good.png")
    Image.fromarray(picture(64, 20)).save(folder / "small.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    whole = (folder / "deep" / "good.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_bytes(b"")
    said: list[str] = []
    found, skipped = data.load_images(data.find_images([folder]), tmp_path / "cache", 32, said.append)
    assert [image.name for image in found] == ["good.png"]
    assert skipped == len(said) == 3
    for name in ("broken.jpg", "cut.png", "small.png"):
        assert sum(name in line for line in said) == 1
    with pytest.raises(InputError, match="no usable image"):
        data.load_images([folder / "broken.jpg"], tmp_path / "cache", 32, said.append)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        data.find_images([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="no images in"):
        data.find_images([tmp_path])


@given(st.integers(2, 500))
def test_hold_out_splits(count: int) -> None:
    paths = [Path(f"{i:03}.png") for i in range(count)]
    train, val = data.hold_out(paths)
    assert sorted(train + val) == paths
    assert 1 <= len(val) <= max(1, count // 20)
    assert len(val) <= 8


# --- degradations


def test_degradations_are_seeded_and_shaped() -> None:
    hr = picture(96, 128)
    for seed in range(40):
        lr = degradation.photo(hr, np.random.default_rng(seed))
        assert lr.shape == (24, 32, 3)
        assert lr.dtype == np.uint8
        assert np.array_equal(lr, degradation.photo(hr, np.random.default_rng(seed)))


def test_without_any_step_a_degradation_is_the_bicubic_reduction() -> None:
    hr = picture(64, 64)
    settings = replace(degradation.PHOTO, clean=1.0)
    assert np.array_equal(degradation.photo(hr, np.random.default_rng(0), settings), datasets.reduce_image(hr))


def test_gaussian_blur_is_a_convolution_with_a_gaussian() -> None:
    impulse = np.zeros((65, 64, 3), np.uint8)
    impulse[32, 30] = 255
    y, x = np.mgrid[-32:33, -30:34]
    u, v = np.cos(0.7) * x + np.sin(0.7) * y, np.cos(0.7) * y - np.sin(0.7) * x
    expected = 255 / (2 * np.pi * 2.0 * 1.2) * np.exp(-((u / 2.0) ** 2 + (v / 1.2) ** 2) / 2)
    assert np.abs(degradation.gaussian_blur(impulse, 2.0, 1.2, 0.7)[..., 0] - expected).max() <= 0.6


def test_low_pass_keeps_what_is_slow_and_removes_what_is_fast() -> None:
    x = np.arange(64)
    for cycles, kept in ((4, True), (24, False)):
        wave = 128 + 100 * np.sin(2 * np.pi * cycles * x / 64)
        rgb = np.rint(np.broadcast_to(wave[None, :, None], (32, 64, 3))).astype(np.uint8)
        assert (np.ptp(degradation.low_pass(rgb, 0.2)) > 100) == kept


def test_noise_has_the_deviation_it_says() -> None:
    for level, expected in ((128, 4.0), (0, 4.0 * 0.5**0.5)):
        flat = np.full((200, 200, 3), level, np.uint8)
        noisy = degradation.noise(flat, np.random.default_rng(0), 4.0, gray=False).astype(float) - level
        if level:
            assert noisy.std() == pytest.approx(expected, rel=0.03)
        else:  # black is cut off at 0: half of the values are left
            assert np.sqrt((noisy**2).mean() * 2) == pytest.approx(expected, rel=0.05)
    gray = degradation.noise(np.full((50, 50, 3), 128, np.uint8), np.random.default_rng(0), 4.0, gray=True)
    assert np.ptp(gray.astype(int), axis=2).max() == 0


def test_sheet_shows_every_patch() -> None:
    small, large = picture(32, 48), picture(64, 64, 1)
    sheet = show_degradations.sheet([small, large], seed=0, columns=3)
    assert sheet.size == (4 * 68, 2 * 68)
    assert np.array_equal(np.asarray(sheet)[68 : 68 + 64, :64], large)
    assert sheet.crop((3 * 68, 0, 3 * 68 + 48, 32)).getextrema() != ((255, 255),) * 3
    assert sheet.crop((48, 0, 68, 68)).getextrema() == ((255, 255),) * 3  # nothing is scaled to fill a place


# --- losses


def test_content_losses() -> None:
    output, target = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.5]])
    assert pixel.content("l1", output, target).item() == pytest.approx(0.5)
    assert pixel.content("l2", output, target).item() == pytest.approx(0.25)
    assert pixel.content("charbonnier", output, target).item() == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("kind", ["vanilla", "relativistic"])
def test_adversarial_losses_are_the_papers(kind: str) -> None:
    real, fake = torch.randn(5, 1, dtype=torch.float64), torch.randn(5, 1, dtype=torch.float64)
    log = torch.log
    d_real, d_fake = torch.sigmoid(real), torch.sigmoid(fake)
    if kind == "relativistic":
        d_real, d_fake = torch.sigmoid(real - fake.mean()), torch.sigmoid(fake - real.mean())
    expected = -log(d_real).mean() - log(1 - d_fake).mean()
    assert torch.allclose(adversarial.discriminator(kind, real, fake), expected)
    swapped = -log(d_fake).mean() - (log(1 - d_real).mean() if kind == "relativistic" else 0)
    assert torch.allclose(adversarial.generator(kind, real, fake), swapped)


RELEASE = {
    0: "conv1",
    3: "fire2",
    4: "fire3",
    6: "fire4",
    7: "fire5",
    9: "fire6",
    10: "fire7",
    11: "fire8",
    12: "fire9",
}


def squeezenet_weights(torchvision_names: bool = False) -> dict[str, Tensor]:
    """Random weights of SqueezeNet 1.1, by the names of the authors' release or torchvision's."""
    torch.manual_seed(0)
    state = {f"features.{k}": v for k, v in torchvision.squeezenet1_1(weights=None).features.state_dict().items()}
    if torchvision_names:
        return state
    for position, name in RELEASE.items():
        start = f"features.{position}."
        state = {
            key.replace(start, f"{name}.").replace("squeeze.", "squeeze1x1."): value for key, value in state.items()
        }
    return state


def vgg19_weights() -> dict[str, Tensor]:
    """Weights of VGG19's convolutions, all equal."""
    layers = torchvision.vgg19(weights=None).features
    return {f"features.{name}": torch.full_like(value, 0.01) for name, value in layers.named_parameters()}


def test_feature_loss_is_zero_for_equal_pictures_and_has_a_gradient() -> None:
    loss = features.FeatureLoss(features.SqueezeNet(squeezenet_weights()), "l1", relative=True)
    target, output = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64, requires_grad=True)
    assert loss(target, target).item() == 0
    loss(output, target, step=5).backward()
    assert output.grad is not None
    assert output.grad.abs().sum() > 0
    assert all(p.grad is None for p in loss.parameters())


def test_texture_is_of_a_kind_and_a_strength_and_not_of_a_place() -> None:
    net = features.SqueezeNet(squeezenet_weights(torchvision_names=True))
    loss = features.FeatureLoss(net, "l1", relative=True)
    torch.manual_seed(0)
    flat = torch.full((1, 3, 96, 96), 0.5)
    noise = flat + 0.1 * torch.randn(1, 1, 96, 96)
    moved, stronger = noise.roll((24, 48), (2, 3)), flat + 2 * (noise - flat)
    striped = flat + 0.1 * 2**0.5 * hatch(0, 6)  # as strong as the noise
    pictures = {"moved": moved, "flat": flat, "stronger": stronger, "striped": striped}
    apart = {name: loss.with_texture(output, noise)[1] for name, output in pictures.items()}
    assert loss.with_texture(noise, noise)[1] == 0
    assert all(apart["moved"] < 0.7 * apart[other] for other in ("flat", "stronger", "striped"))
    assert all(loss.with_texture(output, noise)[0] == loss(output, noise) for output in pictures.values())


def test_a_stage_weighs_lattice_coherence_and_texture() -> None:
    own = {"lattice_weight": 3.0, "coherence_weight": 4.0, "texture_weight": 2.0, "feature_weight": 0.5}
    recipe = config.override(config.TrainConfig(), {"pixel": own})
    net = features.FeatureLoss(features.SqueezeNet(squeezenet_weights()), "l1", relative=True)
    stage = stages.PixelStage("photo", recipe, models.create(models.PRESETS["mesrgan"]), torch.device("cpu"), net)
    torch.manual_seed(0)
    patches = data.Patches(torch.rand(1, 3, 12, 12), torch.rand(1, 3, 48, 48), None)
    losses = {name: float(value) for name, value in stage.step(0, patches).items()}
    assert min(losses[name] for name in ("lattice", "coherence", "texture")) > 0
    parts = losses["content"] + sum(weight * losses[name.removesuffix("_weight")] for name, weight in own.items())
    assert losses["loss"] == pytest.approx(parts, rel=1e-4)


@pytest.mark.parametrize("weight", ["lattice_weight", "coherence_weight"])
@pytest.mark.parametrize(("names", "fits"), [(["pixel"], False), (["photo", "gan"], False), (["gan"], True)])
def test_patches_too_small_for_a_loss_are_told_before_the_run(weight: str, names: list[str], fits: bool) -> None:
    recipe = config.override(config.TrainConfig(patch=32), {"pixel": {weight: 1.0}})
    with contextlib.nullcontext() if fits else pytest.raises(UsageError, match=f"{weight} needs --patch 48"):
        stages.check_patches(recipe, names, batch=4)
    stages.check_patches(config.override(recipe, {"patch": 48}), names, batch=4)


def test_texture_is_compared_at_the_sizes_of_the_features_and_flat_windows_do_not_matter() -> None:
    net = features.SqueezeNet(squeezenet_weights())
    at = {sizes: features.FeatureLoss(net, "l1", relative=True, sizes=sizes) for sizes in ((1.0,), (1.5,), (1.0, 1.5))}
    torch.manual_seed(0)
    target, output = 0.5 + 0.1 * torch.randn(2, 1, 3, 96, 96)
    one, larger, mean = (loss.with_texture(output, target)[1].item() for loss in at.values())
    assert mean == pytest.approx((one + larger) / 2, rel=1e-4) and one != pytest.approx(larger, rel=1e-3)
    target[..., 48:] = 0.5
    faint = target.clone()
    faint[..., 52:] += 0.002 * torch.randn(1, 3, 96, 44)
    assert at[(1.0,)].with_texture(faint, target)[1].item() < 0.02 * one


def test_only_squeezenets_maps_are_compared_for_texture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "feature_net", lambda *_: features.Vgg19(vgg19_weights()))
    recipe = config.override(config.TrainConfig(), {"pixel": {"texture_weight": 1.0}})
    with pytest.raises(UsageError, match="texture_weight needs --feature-net squeezenet1_1, not vgg19"):
        job._features(recipe, ["pixel"], TrainOptions())
    none = config.override(recipe, {"pixel": {"feature_net": "none"}})
    assert job._features(none, ["pixel"], TrainOptions()) == {"pixel": None}


@pytest.mark.parametrize("relative", [True, False])
def test_only_the_relative_feature_loss_ignores_the_networks_scale(relative: bool) -> None:
    weights = squeezenet_weights()
    output, target = torch.rand(2, 1, 3, 64, 64)
    values = []
    for factor in (1.0, 3.0):
        scaled = {k: v * factor if k.startswith("conv1") else v for k, v in weights.items()}
        scaled = {k: v * 0 if k.endswith("bias") and not k.startswith("conv1") else v for k, v in scaled.items()}
        values.append(features.FeatureLoss(features.SqueezeNet(scaled), "l2", relative)(output, target).item())
    assert (values[0] == pytest.approx(values[1], rel=1e-3)) == relative


def test_squeezenets_maps_are_torchvisions_before_their_activation() -> None:
    theirs = torchvision.squeezenet1_1(weights=None).eval()
    mine = features.SqueezeNet(theirs.state_dict()).eval()
    rgb = torch.rand(1, 3, 96, 80)
    with torch.no_grad():
        x = (rgb - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
            3, 1, 1
        )
        maps = []
        for layer in theirs.features:
            x = layer(x)
            maps.append(x)
        ours = mine(rgb)
    assert torch.allclose(ours.first, maps[1], atol=1e-5)
    for seen, position in zip(ours.compared, (4, 7, 12), strict=True):  # fire3, fire5, fire9
        assert seen.min() < 0
        assert torch.allclose(torch.relu(seen), maps[position], atol=1e-5)


def test_vgg19s_map_is_that_of_conv5_4_before_its_activation() -> None:
    state = vgg19_weights()
    maps = features.Vgg19(state)(torch.zeros(1, 3, 32, 32))
    assert [seen.shape for seen in maps.compared] == [(1, 512, 2, 2)]  # after the fourth of five poolings
    kinds = [type(layer) for layer in features.Vgg19(state).features]
    assert (kinds.count(nn.Conv2d), kinds[-1]) == (16, nn.Conv2d)


def test_both_layouts_of_squeezenet_load(tmp_path: Path) -> None:
    np.savez(tmp_path / "release.npz", **{k: v.numpy() for k, v in squeezenet_weights().items()})
    torch.save(squeezenet_weights(torchvision_names=True), tmp_path / "torchvision.pth")
    release = features.feature_net("squeezenet1_1", tmp_path / "release.npz")
    other = features.feature_net("squeezenet1_1", tmp_path / "torchvision.pth")
    for name, value in release.state_dict().items():
        same = value.flip(1) if name == "features.0.weight" else value
        assert torch.equal(same, other.state_dict()[name])


def test_feature_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(WeightsError, match=r"other\.npz.*features\.0\.weight"):
        features.feature_net("squeezenet1_1", tmp_path / "other.npz")
    (tmp_path / "broken.pth").write_bytes(b"no pickle")
    with pytest.raises(WeightsError, match=r"broken\.pth"):
        features.feature_net("vgg19", tmp_path / "broken.pth")
    with pytest.raises(WeightsError, match=r"nowhere\.safetensors"):
        features.feature_net("vgg19", tmp_path / "nowhere.safetensors")


def test_a_log_that_cannot_be_read_is_not_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    log = tmp_path / "log.jsonl"
    log.write_text('{"stage": "pixel", "step": 50}\n')
    opened = Path.open

    def failing(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path == log:
            raise OSError(5, "Input/output error")
        return opened(path, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", failing)
        with pytest.raises(OSError, match="Input/output"):
            run.forget_after("pixel", 100)
    assert [record["step"] for record in run.records()] == [50]


# --- networks and optimisation


@pytest.mark.parametrize("side", [16, 48, 128])
def test_discriminator_takes_any_patch_of_16s(side: int) -> None:
    network = Discriminator(features=4)
    network.reset_parameters(torch.Generator().manual_seed(0))
    assert network(torch.rand(2, 3, side, side)).shape == (2, 1)


def test_discriminator_has_the_papers_layers() -> None:
    convs = [m for m in Discriminator().modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convs] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [c.stride[0] for c in convs] == [1, 2] * 4


def test_learning_rates() -> None:
    cosine = config.OptimiserConfig(lr=1.0, warmup=10)
    rates = [stages.learning_rate(cosine, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[50] == pytest.approx(0.5)
    assert rates[99] < 0.001
    halve = config.OptimiserConfig(lr=1.0, schedule="halve", halve_at=(10, 20), warmup=0)
    assert [stages.learning_rate(halve, step, 100) for step in (9, 10, 20)] == [1.0, 0.5, 0.25]


def test_a_step_with_a_non_finite_gradient_changes_nothing() -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimisation = stages.Optimisation(config.OptimiserConfig(warmup=0), 10, [parameter], None)
    assert not optimisation.step(0, parameter.sum())
    before, state = parameter.detach().clone(), optimisation.tensors("adam")
    state = {k: v.clone() for k, v in state.items()}
    assert optimisation.step(1, (parameter * float("nan")).sum())
    assert torch.equal(parameter, before)
    for name, value in optimisation.tensors("adam").items():
        assert torch.equal(value, state[name])
    assert not optimisation.step(2, parameter.sum())


def test_ema_follows_and_undoes_what_a_bad_step_did_to_batchnorm() -> None:
    model = models.create(models.PRESETS["srgan"])
    model.reset_parameters(torch.Generator().manual_seed(0))
    ema = stages.Ema(model, decay=0.9)
    before = {k: v.clone() for k, v in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    ema.update(model, step=1000, bad=torch.tensor(False))
    for name, value in ema.model.named_parameters():
        assert torch.allclose(value, before[name] + 0.1, atol=1e-6)
    with torch.no_grad():
        model.trunk_norm.running_mean.fill_(float("nan"))
    ema.update(model, step=1001, bad=torch.tensor(True))
    assert all(torch.isfinite(buffer).all() for buffer in model.buffers())


def test_the_grid_loss_sees_what_repeats_with_the_upsampler() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 3, 96, 80, generator=generator)
    assert pixel.grid(target, target) == 0
    strength = 0.05
    noise = strength * torch.randn(2, 3, 96, 80, generator=generator)
    tile = strength * torch.randn(2, 3, 4, 4, generator=generator)
    on_the_grid = pixel.grid(target + tile.repeat(1, 1, 24, 20), target)
    assert on_the_grid == pytest.approx((tile - tile.mean((2, 3), keepdim=True)).abs().mean().item(), rel=1e-4)
    assert pixel.grid(target + 0.1, target) < 1e-6
    assert pixel.grid(target + noise, target) < 0.35 * on_the_grid
    tile = strength * torch.randn(2, 3, 5, 5, generator=generator)  # another period
    assert pixel.grid(target + tile.repeat(1, 1, 20, 16)[:, :, :96], target[:, :, :96]) < 0.5 * on_the_grid


def hatch(slope: float, period: float, side: int = 96) -> Tensor:
    """Stripes of a period in pixels, leaning by `slope` pixels a row, (1, 1, side, side), in -1..1."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.sin(2 * torch.pi * (x + slope * y) / period)[None, None]


@pytest.mark.parametrize(("slope", "period"), [(0, 4), (1, 4), (-1, 4), (0.5, 4), (0.5, 8 / 3), (0, 8)])
def test_the_lattice_loss_sees_a_hatch_that_repeats_with_the_inputs_pixels(slope: float, period: float) -> None:
    torch.manual_seed(0)
    flat = torch.full((1, 3, 96, 96), 0.5)
    assert pixel.lattice(flat, flat) == 0
    pattern, noise = flat + 0.03 * hatch(slope, period), flat + 0.03 * torch.randn(1, 1, 96, 96)
    assert pixel.lattice(pattern, flat) > 5 * pixel.lattice(noise, flat)
    assert pixel.lattice(pattern, pattern) == 0  # what the photo has itself is no fault: a fence, cloth


def test_the_lattice_loss_lets_alone_what_repeats_otherwise_and_what_is_too_faint_to_see() -> None:
    flat = torch.full((1, 3, 96, 96), 0.5)
    seen = pixel.lattice(flat + 0.03 * hatch(0, 4), flat)
    assert pixel.lattice(flat + 0.03 * hatch(0.3, 5), flat) < 0.5 * seen
    assert pixel.lattice(flat + 0.0005 * hatch(0, 4), flat) < 0.1 * seen
    assert pixel.lattice(flat[:, :, :40, :40] + 0.03 * hatch(0, 4, 40), flat[:, :, :40, :40]) > 0.5 * seen


@pytest.mark.parametrize("loss", [pixel.lattice, pixel.coherence])
def test_losses_of_correlations_have_a_gradient_where_nothing_varies(loss: Callable[..., Tensor]) -> None:
    flat = torch.zeros(1, 3, 48, 48, requires_grad=True)
    loss(flat, torch.rand(1, 3, 48, 48)).backward()
    assert flat.grad is not None and flat.grad.isfinite().all()


def test_the_coherence_loss_sees_lines_where_texture_should_be_under_grain_too_and_nothing_else() -> None:
    torch.manual_seed(0)
    flat = torch.full((2, 3, 96, 96), 0.5)
    blobs = torch.nn.functional.interpolate(torch.randn(2, 1, 32, 32), size=(96, 96), mode="bicubic")
    texture, lines = flat + 0.1 * blobs, flat + 0.1 * 2**0.5 * hatch(0.5, 8)
    grain = 0.05 * torch.randn(2, 1, 96, 96)
    seen = pixel.coherence(lines, texture)
    assert seen > 0.3 and pixel.coherence(lines + grain, texture) > 0.8 * seen
    assert pixel.coherence(texture, lines) == 0 and pixel.coherence(lines, lines) == 0
    other = pixel.coherence(texture.roll((24, 48), (2, 3)), texture)
    assert other < 0.15 * seen and pixel.coherence(flat + 0.001 * hatch(0.5, 8), flat) < 0.05 * seen
    least = (slice(None), slice(None), slice(pixel.COHERENCE_LEAST), slice(pixel.COHERENCE_LEAST))
    assert pixel.coherence(lines[least], texture[least]) > 0.5 * seen


def test_the_flat_loss_counts_only_what_flat_places_get() -> None:
    target = torch.full((1, 3, 64, 64), 0.5)
    target[..., 32:] = torch.rand(1, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    assert pixel.flat(target, target) == 0
    sky, leaves = target.clone(), target.clone()
    sky[..., :28] += 0.01
    leaves[..., 36:] += 0.01
    assert pixel.flat(sky, target).item() == pytest.approx(0.01 * 28 / 64, rel=1e-3)
    assert pixel.flat(leaves, target) < 0.01 * pixel.flat(sky, target)


def test_spectral_loss_sees_strength_and_not_place() -> None:
    torch.manual_seed(0)
    flat = torch.full((1, 3, 64, 64), 0.5)
    noise = 0.1 * torch.randn(1, 1, 64, 64)
    texture, moved, stronger = flat + noise, flat + noise.roll((5, 3), (2, 3)), flat + 2 * noise
    assert pixel.spectral(texture, texture) == 0
    # Independent noise of equal strength differs by chance; smoothing or doubling it by much more.
    assert pixel.spectral(moved, texture) < 0.6 * pixel.spectral(flat, texture)
    assert pixel.spectral(texture.mean((2, 3), keepdim=True).expand_as(flat), texture) > 0.5
    screen = flat.clone()
    screen[..., ::4, ::4] += 0.02
    assert pixel.spectral(screen, flat) > 10 * pixel.content("l1", screen, flat)
    assert pixel.spectral(stronger, texture) > 0.3


def test_spectral_loss_has_a_gradient_where_nothing_varies() -> None:
    flat = torch.zeros(1, 3, 32, 32, requires_grad=True)
    pixel.spectral(flat, torch.rand(1, 3, 32, 32)).backward()
    assert flat.grad is not None and flat.grad.isfinite().all()


def test_the_unet_discriminator_answers_for_each_pixel_and_is_normalised() -> None:
    net = UnetDiscriminator(4)
    states = []
    for seed in (1, 1, 2):
        net.reset_parameters(torch.Generator().manual_seed(seed))
        states.append({name: value.clone() for name, value in net.state_dict().items()})
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["head.weight"], states[2]["head.weight"])
    assert net(torch.rand(2, 3, 32, 48)).shape == (2, 1, 32, 48)
    for _ in range(50):
        net(torch.rand(1, 3, 16, 16))
    largest = torch.linalg.matrix_norm(net.down[1].weight.flatten(1), 2)
    assert largest.item() == pytest.approx(1.0, abs=0.05)


def test_the_patch_discriminator_answers_for_neighbourhoods_and_learns_to_see_a_weave() -> None:
    torch.manual_seed(0)
    net = PatchDiscriminator(8)
    net.reset_parameters(torch.Generator().manual_seed(0))
    assert net(torch.rand(2, 3, 32, 48)).shape == (2, 1, 4, 6)
    adam = torch.optim.Adam(net.parameters(), 5e-3)
    losses = []
    for _ in range(60):
        real = torch.nn.functional.interpolate(torch.rand(4, 3, 9, 9), size=32, mode="bicubic")
        woven = real.clone()
        woven[..., ::4, ::4] += 0.1
        loss = adversarial.discriminator("vanilla", net(real), net(woven))
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[0] > 1.2
    assert losses[-1] < 0.5


@pytest.mark.parametrize(("shift", "patch", "side"), [(True, 64, 48), (True, 32, 16), (True, 16, 16), (False, 64, 64)])
def test_the_discriminator_looks_through_a_moving_window(shift: bool, patch: int, side: int) -> None:
    """The same one for photographs and generated pictures, at every offset to its strides in turn."""
    recipe = config.override(
        config.TrainConfig(),
        {"gan": {"discriminator_shift": shift, "discriminator_features": 1, "feature_net": "none"}},
    )
    stage = stages.GanStage(recipe, models.create(models.PRESETS["mesrgan"]), torch.device("cpu"), None)
    seen: list[Tensor] = []
    stage.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    places = torch.arange(patch**2).float().view(1, 1, patch, patch).expand(1, 3, -1, -1)
    offsets = set()
    for step in range(2000):
        window = stage._shown(places, step)
        assert window.shape[2:] == (side, side)
        top, left = divmod(int(window[0, 0, 0, 0]), patch)
        assert torch.equal(window, places[:, :, top : top + side, left : left + side])
        offsets.add((top, left))
    assert len(offsets) == (256 if side < patch else 1)
    rgb = places.expand(2, -1, -1, -1) / patch**2
    stage.step(5, data.Patches(torch.rand(2, 3, patch // 4, patch // 4), rgb))
    assert len(seen) == 4 and {rgb.shape[2:] for rgb in seen} == {(side, side)}
    assert torch.equal(seen[1], stage._shown(places.expand(2, -1, -1, -1) / patch**2, 5))


# --- checkpoints


def test_a_checkpoint_replaced_while_it_is_read_is_not_mixed_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, parse = tmp_path / "pixel.last.safetensors", checkpoint.load
    checkpoint.save_state(path, {"w": torch.zeros(1000)}, {"step": 4})

    def replaced_meanwhile(file: bytes) -> dict[str, Tensor]:
        checkpoint.save_state(path, {"w": torch.ones(1001)}, {"step": 10})
        return parse(file)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "load", replaced_meanwhile)
        tensors, info = checkpoint.load_state(path)
    assert info == {"step": 4} and torch.equal(tensors["w"], torch.zeros(1000))
    assert checkpoint.load_state(path)[1] == {"step": 10}


# --- configuration


def test_configuration_survives_toml(tmp_path: Path) -> None:
    for known in recipes.RECIPES.values():
        (tmp_path / "config.toml").write_text(config.dump_toml(known))
        assert config.override(config.TrainConfig(), config.read_toml(tmp_path / "config.toml")) == known


def test_a_missing_configuration_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        config.read_toml(tmp_path / "c.toml")
    assert str(caught.value) == f"cannot read the configuration {tmp_path / 'c.toml'}: No such file or directory"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("bach = 3", "unknown setting 'bach'; known here: model, seed, batch, .*"),
        ("gan.colour = 3", r"unknown setting 'gan\.colour'; known here: .*discriminator"),
        ("batch = 'many'", "setting 'batch' must be a whole number from 1, not 'many'"),
        ("patch = 100", "setting 'patch' must be a whole number from 16, a multiple of 16, not 100"),
        ("precision = 'fp8'", "setting 'precision' must be one of auto, fp32, bf16, fp16, not 'fp8'"),
        ("ema_decay = 1", "setting 'ema_decay' must be a number from 0 below 1, not 1"),
        ("sizes = [1, 2]", r"setting 'sizes\.1' must be a number above 0 to 1, not 2"),
        ("sizes = []", r"setting 'sizes' must be a list of a length from 1, not \[\]"),
        ("[gan.generator]\nlr = -1", r"setting 'gan\.generator\.lr' must be a number above 0, not -1"),
        ("pixel = 3", "setting 'pixel' must be an object, not 3"),
        ("= nonsense", "configuration"),
    ],
)
def test_nonsense_in_a_configuration_is_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(UsageError, match=named):
        config.override(config.TrainConfig(), config.read_toml(tmp_path / "c.toml"))


def test_plot_is_svg_with_a_panel_per_curve() -> None:
    import xml.etree.ElementTree as ElementTree

    measured = {"val_psnr_y": 20.0, "bicubic_psnr_y": 19.0, "samples": "samples/pixel-1.png"}
    records = [{"stage": "pixel", "step": i, "loss": 0.1 / i, **measured} for i in range(1, 5)]
    records += [{"stage": "gan", "step": i, "loss": 1.0, "feature": float("nan")} for i in range(1, 3)]
    root = ElementTree.fromstring(plot.svg(records))
    titles = [e.text for e in root.iter() if e.get("font-weight") == "bold"]
    assert titles == ["pixel: losses", "pixel: validation PSNR-Y, dB", "gan: losses"]
    texts = [e.text for e in root.iter() if e.tag.endswith("text")]
    assert [name for name in texts if name in ("loss", "EMA weights", "bicubic", "bicubic_psnr_y")] == [
        "loss",
        "EMA weights",
        "bicubic",
        "loss",
    ]
    assert ElementTree.fromstring(plot.svg([])).tag.endswith("svg")


@pytest.mark.parametrize(("fast", "dtype"), [(True, torch.bfloat16), (False, None)])
def test_auto_precision_is_bf16_where_the_processor_is_faster_with_it(
    fast: bool, dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "this_processor", lambda: Processor("Some CPU", fast))
    assert stages.autocast_dtype("auto", torch.device("cpu")) == dtype
    assert stages.autocast_dtype("bf16", torch.device("cpu")) == torch.bfloat16
    assert stages.autocast_dtype("fp32", torch.device("cpu")) is None
