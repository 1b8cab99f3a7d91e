"""Weights for other programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sr_cli import models, weights
from sr_cli.errors import OutputError, UsageError, WeightsError
from sr_cli.models.esrgan import EsrganConfig
from sr_cli.models.mesrgan import MesrganConfig
from sr_cli.models.msrresnet import MsrresnetConfig
from sr_cli.models.rrdbnet import RrdbnetConfig
from sr_cli.models.srgan import SrganConfig
from sr_cli.weights.export import export
from tests.test_rrdbnet import new_style

CONFIGS = {
    "srgan": SrganConfig(2, 8),
    "esrgan": EsrganConfig(2, 8, 4),
    "mesrgan": MesrganConfig(2, 8, 4),
    "mesrgan-poster": MesrganConfig(2, 8, 4, 2, "full"),
    "rrdbnet": RrdbnetConfig(1, 8, 4),
    "rrdbnet-x2": RrdbnetConfig(1, 8, 4, 2, 2),
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
    with pytest.raises(WeightsError, match="which BasicSR does not have"):
        export(loaded(CONFIGS["mesrgan"], tmp_path), tmp_path / "x.pth")


@pytest.mark.parametrize(
    "name", ["mesrgan", *(pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS if name != "mesrgan")]
)
def test_onnx_agrees(tmp_path: Path, name: str) -> None:
    import onnxruntime

    model = loaded(CONFIGS[name], tmp_path)
    assert export(model, tmp_path / "out.onnx") == "onnx"
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
