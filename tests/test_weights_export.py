"""Weights for other programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from sr_cli import models, weights
from sr_cli.errors import OutputError, UsageError, WeightsError
from sr_cli.models.compact import to_compact
from sr_cli.models.mesrgan import Mesrgan
from sr_cli.models.msrresnet import MsrresnetConfig
from sr_cli.models.rrdbnet import RrdbnetConfig
from sr_cli.weights.export import export
from tests.networks import SMALL
from tests.test_rrdbnet import new_style

CONFIGS = {
    **SMALL,
    "rrdbnet": RrdbnetConfig(1, 8, 32),  # spandrel knows no other growth
    "rrdbnet-x2": RrdbnetConfig(1, 8, 32, 2, 2),
    "msrresnet": MsrresnetConfig(2, 8),
}


def loaded(config: models.GeneratorConfig, folder: Path) -> weights.LoadedModel:
    generator = models.create(config)
    generator.reset_parameters(torch.Generator().manual_seed(0))
    save_file(generator.state_dict(), folder / "model.safetensors")
    return weights.load(folder / "model.safetensors")


def test_safetensors_load_again(tmp_path: Path) -> None:
    model = loaded(CONFIGS["mesrgan"], tmp_path)
    assert export(model, tmp_path / "out.safetensors") == "safetensors"
    again = weights.load(tmp_path / "out.safetensors").generator
    torch.testing.assert_close(again.state_dict(), model.generator.state_dict(), rtol=0, atol=0)
    with pytest.raises(OutputError, match="already exists"):
        export(model, tmp_path / "out.safetensors")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_basicsrs_layout(tmp_path: Path, suffix: str) -> None:
    state = new_style(2, 2, 8, 4)
    save_file(state, tmp_path / "in.safetensors")
    assert export(weights.load(tmp_path / "in.safetensors"), tmp_path / f"out{suffix}", "basicsr") == "basicsr"
    path = tmp_path / f"out{suffix}"
    back = load_file(path) if suffix == ".safetensors" else torch.load(path, weights_only=True)["params"]
    torch.testing.assert_close(dict(back), state, rtol=0, atol=0)
    for name in ("srgan", "esrgan", "mesrgan-poster"):
        with pytest.raises(WeightsError, match=r"BasicSR has no form of; export it to a file that ends in \.onnx"):
            export(loaded(CONFIGS[name], tmp_path), tmp_path / "x.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", ["mesrgan", "mesrgan-single", "rrdbnet", "rrdbnet-x2"])
def test_other_programs_open_it_and_compute_the_same(tmp_path: Path, name: str, suffix: str) -> None:
    """chaiNNer and ComfyUI load models by the library spandrel."""
    spandrel = pytest.importorskip("spandrel")
    model = loaded(CONFIGS[name], tmp_path)
    export(model, tmp_path / f"out{suffix}", "basicsr")
    theirs = spandrel.ModelLoader().load_from_file(tmp_path / f"out{suffix}")
    assert theirs.scale == model.scale
    assert theirs.architecture.id == ("Compact" if name.startswith("mesrgan") else "ESRGAN")
    rgb = torch.rand(1, 3, 18, 26, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert (theirs.model.float()(rgb) - model.generator(rgb)).abs().max() < 0.5 / 255


@pytest.mark.parametrize("name", ["mesrgan", "mesrgan-single"])
def test_the_compact_form_is_exact_up_to_the_border(name: str) -> None:
    generator = models.create(CONFIGS[name]).eval()
    generator.reset_parameters(torch.Generator().manual_seed(0))
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=noise))
    assert isinstance(generator, Mesrgan)
    state = {key: value.double() for key, value in to_compact(generator).items()}
    rgb = torch.rand(1, 3, 9, 11, dtype=torch.float64, generator=noise)
    x = rgb
    layers = len(state) // 3  # weight, bias and slopes, but for the last
    for index in range(layers + 1):
        x = F.conv2d(x, state[f"body.{2 * index}.weight"], state[f"body.{2 * index}.bias"], padding=1)
        if index < layers:
            x = F.prelu(x, state[f"body.{2 * index + 1}.weight"])
    enlarged = F.pixel_shuffle(x, 4) + rgb.repeat_interleave(4, 2).repeat_interleave(4, 3)
    with torch.inference_mode():
        expected = generator.double()(rgb)
    assert expected.abs().max() > 1
    assert (enlarged - expected).abs().max() < 1e-4


@pytest.mark.parametrize(
    "name", ["mesrgan", *(pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS if name != "mesrgan")]
)
def test_onnx_agrees(tmp_path: Path, name: str) -> None:
    import onnxruntime

    model = loaded(CONFIGS[name], tmp_path)
    assert export(model, tmp_path / "out.onnx") == "onnx"
    import onnx

    stored = onnx.load_model(tmp_path / "out.onnx")
    onnx.checker.check_model(stored)
    facts = {entry.key: entry.value for entry in stored.metadata_props}
    assert (facts["scale"], facts["family"], facts["clamp"]) == (
        str(model.scale),
        model.generator.config.family,
        "0..1",
    )
    assert "clamp" in stored.graph.output[0].doc_string and "0..1" in stored.graph.input[0].doc_string
    session = onnxruntime.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 20, 33), (3, 3, 9, 14)):
        rgb = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        (enlarged,) = session.run(None, {session.get_inputs()[0].name: rgb.numpy()})
        with torch.inference_mode():
            expected = model.generator(rgb).numpy()
        assert enlarged.shape == expected.shape
        assert np.abs(enlarged - expected).max() < 1 / 255


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    model = loaded(CONFIGS["srgan"], tmp_path)
    with pytest.raises(UsageError, match="--format must be one of"):
        export(model, tmp_path / "x.bin", "tensorflow")
    with pytest.raises(UsageError, match=r"needs the suffix \.safetensors"):
        export(model, tmp_path / "x.bin")
    with pytest.raises(UsageError, match=r"the format onnx needs the suffix \.onnx"):
        export(model, tmp_path / "x.pth", "onnx")
