"""How folders become pairs, and how LR is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from sr_cli import datasets
from sr_cli.errors import InputError
from sr_cli.metrics.psnr import psnr

small_images = hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3))).map(
    lambda image: image.repeat(4, 0).repeat(4, 1)
)


def save(path: Path, height: int = 16, width: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_published_lr_is_close_to_ours(shared: Path) -> None:
    scores = []
    for name in ("Set5", "Set14"):
        for pair in datasets.from_folder(shared / "data/test" / name).pairs:
            hr, lr = datasets.load(pair)
            assert lr is not None
            scores.append(psnr(datasets.reduce_image(hr), lr))
    assert len(scores) == 19
    assert min(scores) > 46


@settings(deadline=None)
@given(small_images)
def test_aliased_reduction_is_torchs(image: np.ndarray) -> None:
    image = np.random.default_rng(image.shape[0]).integers(0, 256, image.shape, dtype=np.uint8)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255
    size = (image.shape[0] // 4, image.shape[1] // 4)
    expected = torch.nn.functional.interpolate(tensor, size=size, mode="bicubic", align_corners=False)
    expected = expected[0].permute(1, 2, 0).clamp(0, 1).numpy()
    np.testing.assert_allclose(datasets.reduce_aliased(image), expected, atol=1e-6)


def test_layouts(tmp_path: Path) -> None:
    save(tmp_path / "plain/b.png")
    save(tmp_path / "plain/a.jpg")
    (tmp_path / "plain/notes.txt").write_text("not an image")
    save(tmp_path / "folders/HR/0801.png")
    save(tmp_path / "folders/LR/0801x4.png", 4, 4)
    save(tmp_path / "suffixes/x_HR.png")
    save(tmp_path / "suffixes/x_LR.png", 4, 4)
    plain, folders, suffixes = (datasets.from_folder(tmp_path / n) for n in ("plain", "folders", "suffixes"))
    assert [(p.name, p.lr) for p in plain.pairs] == [("a.jpg", None), ("b.png", None)]
    assert plain.lr == "made"
    for dataset, name in ((folders, "0801.png"), (suffixes, "x_HR.png")):
        assert (dataset.lr, [p.name for p in dataset.pairs]) == ("shipped", [name])
        hr, lr = datasets.load(dataset.pairs[0])
        assert lr is not None
        assert (hr.shape, lr.shape) == ((16, 16, 3), (4, 4, 3))


def test_files_without_a_partner_are_named(tmp_path: Path) -> None:
    save(tmp_path / "a_HR.png")
    save(tmp_path / "a_LR.png", 4, 4)
    save(tmp_path / "b_HR.png")
    save(tmp_path / "c_LR.png", 4, 4)
    save(tmp_path / "stray.png")
    problems = {p.name: p.problem for p in datasets.from_folder(tmp_path).pairs}
    assert problems["a_HR.png"] is None
    assert problems["b_HR.png"] == "no LR image of this name"
    assert problems["c_LR.png"] == "no HR image of this name"
    assert "neither" in str(problems["stray.png"])


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image in it"):
        datasets.from_folder(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        datasets.from_folder(tmp_path / "absent")


def test_load_names_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(InputError, match=r"broken\.png: cannot be read"):
        datasets.load(datasets.from_folder(tmp_path).pairs[0])
    pair = datasets.Pair("p", save(tmp_path / "p.png", 16, 20), save(tmp_path / "q.png", 5, 4))
    with pytest.raises(InputError, match="LR of 4x5 does not fit HR of 20x16"):
        datasets.load(pair)
    with pytest.raises(InputError, match="smaller than 4"):
        datasets.load(datasets.Pair("t", save(tmp_path / "t.png", 3, 8), None))


def test_hr_is_cropped_to_multiples_of_four(tmp_path: Path) -> None:
    hr, lr = datasets.load(datasets.Pair("p", save(tmp_path / "p.png", 18, 21), None))
    assert hr.shape == (16, 20, 3)
    assert lr is None
