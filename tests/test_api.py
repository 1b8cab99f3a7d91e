"""The Python API: pictures of every form, and the examples of docs/api.md."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_fidelity import fine_tuned, home, register
from test_inference import upscaler

import sr_cli
from sr_cli import Upscaler
from tests.networks import SMALL, with_weights

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text("utf-8"), re.DOTALL)
__all__ = ["home"]


def _image(mode: str, size: tuple[int, int] = (9, 6)) -> Image.Image:
    values = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 4), np.uint8)
    if mode == "I;16":
        return Image.fromarray(values[:, :, 0].astype(np.uint16) * 257)
    return Image.fromarray(values, "RGBA").convert(mode)


@pytest.mark.parametrize(
    ("mode", "becomes"),
    [
        *((m, m) for m in ("L", "LA", "RGB", "RGBA", "I;16")),
        ("1", "L"),
        ("P", "RGB"),
        ("CMYK", "RGB"),
        ("YCbCr", "RGB"),
    ],
)
def test_pillow_images(mode: str, becomes: str) -> None:
    image = _image(mode)
    result = upscaler()(image)
    assert (result.mode, result.size) == (becomes, (36, 24))
    assert image.size == (9, 6)


def test_pillow_palette_with_transparency() -> None:
    image = _image("RGB").quantize(8)
    image.info["transparency"] = 0
    result = upscaler()(image)
    assert result.mode == "RGBA" and "transparency" not in result.info


def test_pillow_profile_and_exif_stay() -> None:
    image = _image("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.info.update(icc_profile=b"profile", exif=exif.tobytes())
    result = upscaler()(image)
    assert result.info["icc_profile"] == b"profile"
    assert result.getexif()[0x0112] == 6


def test_pillow_and_array_and_tensor_agree() -> None:
    image = _image("RGB")
    upscale = upscaler()
    expected = np.asarray(upscale(image))
    assert np.array_equal(upscale(np.asarray(image)), expected)
    tensor = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    assert np.array_equal(upscale(tensor).permute(1, 2, 0).numpy(), expected)
    floats = upscale(tensor.float() / 255)
    assert np.array_equal((floats * 255).round().byte().permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f2", "f4", "f8"])
@pytest.mark.parametrize("shape", [(6, 9), (6, 9, 1), (6, 9, 3)])
def test_arrays(shape: tuple[int, ...], dtype: str) -> None:
    array = (np.random.default_rng(0).random(shape) * {"u1": 255, "u2": 65535}.get(dtype, 1)).astype(dtype)
    result = upscaler()(array)
    assert result.dtype == array.dtype
    assert result.shape == (24, 36, *shape[2:])


@pytest.mark.parametrize("channels", [2, 4])
def test_arrays_with_alpha(channels: int) -> None:
    array = np.full((6, 9, channels), 200, np.uint8)
    array[:, :, -1] = 255
    array[:, :4] = 0  # transparent black beside opaque colour
    result = Upscaler("bicubic")(array)
    assert result.shape == (24, 36, channels)
    assert result[:, :, -1].min() == 0 and result[:, :, -1].max() == 255
    assert (result[:, :, :-1] == 200).all()  # no dark halo


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 6, 9), (2, 3, 6, 9), (1, 3, 6, 9)])
def test_tensors(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    result = upscaler()(tensor)
    assert result.dtype == dtype and not result.requires_grad
    assert result.shape == (*shape[:-2], 24, 36)
    if len(shape) == 4:
        assert torch.equal(result[0], upscaler()(tensor[0]))


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.int64),
        np.zeros((4, 4, 4), np.float32),
        np.zeros(4, np.uint8),
        torch.zeros(1, 4, 4),
        torch.zeros(3, 4),
        torch.zeros(3, 4, 4, dtype=torch.int64),
        Image.new("F", (4, 4)),
    ],
    ids=lambda p: f"{type(p).__name__}-{getattr(p, 'shape', '')}-{getattr(p, 'dtype', '')}",
)
def test_other_shapes_and_types_are_refused(picture: Any) -> None:
    with pytest.raises(ValueError, match=r"must|mode"):
        upscaler()(picture)


def test_other_things_are_refused() -> None:
    with pytest.raises(TypeError, match="not str"):
        Upscaler("bicubic")("photo.jpg")  # type: ignore[type-var]


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_of_the_documentation(
    example: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixel = with_weights(SMALL["mesrgan"])
    register(home, "mesrgan", {"pixel": (pixel, None), "gan": (fine_tuned(pixel), "pixel")}, "pixel")
    Image.open(ROOT / "assets" / "kitten.jpg").resize((48, 32)).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/api.md", "exec"), {})
    if "photo_x4" in example:
        assert (tmp_path / "photo_x4.png").exists()


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


def test_public_names() -> None:
    assert {"Upscaler", "SrupError", "EngineResult", "__version__"} <= set(dir(sr_cli))
    assert all(getattr(sr_cli, name) is not None for name in sr_cli.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = sr_cli.nonsense


def test_neither_the_import_nor_bicubic_needs_torch() -> None:
    code = (
        "import sys; import sr_cli; assert 'numpy' not in sys.modules\n"
        "from sr_cli import Upscaler; import numpy\n"
        "Upscaler('bicubic')(numpy.zeros((2, 2, 3), numpy.uint8))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)
