"""The fused bottleneck: kernels (in Triton's interpreter where there is no GPU) against torch in float64."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from sr_cli.inference.backends import fused
from sr_cli.inference.backends.bottleneck import BottleneckWeights, bottleneck_, has_kernels, reference_
from sr_cli.models import create
from sr_cli.models.mesrgan import Bottleneck, MesrganConfig

# (channels, output channels, expansion, N, H, W, start, residual): MESRGAN's own widths and odd ones.
CASES = [
    (64, 32, 1, 1, 7, 9, 64, False),
    (96, 32, 1, 2, 5, 3, 96, False),
    (160, 32, 1, 1, 4, 33, 160, False),
    (192, 64, 1, 1, 6, 5, 0, True),
    (128, 32, 2, 1, 3, 3, 128, False),
    (24, 8, 1, 3, 1, 1, 24, False),
    (40, 24, 1, 1, 17, 13, 0, True),
    (20, 7, 3, 1, 1, 130, 21, False),
]


def random_case(case: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, BottleneckWeights]:
    channels, out, expansion, count, height, width, start, _ = case
    torch.manual_seed(0)
    layer = Bottleneck(channels, out, expansion)
    buffer = torch.randn(count, height, width, max(channels, start + out) + 3)
    return buffer.to(dtype), BottleneckWeights.of(layer, dtype)


def widened(weights: BottleneckWeights) -> BottleneckWeights:
    return BottleneckWeights(*(value.double() for value in vars(weights).values()))


def worst_error(case: tuple[int, ...], dtype: torch.dtype, device: str) -> float:
    """Largest difference between `bottleneck_` and float64; also checks that no other channel is touched."""
    start, residual, out = case[6], bool(case[7]), case[1]
    buffer, weights = random_case(case, dtype)
    expected, before = buffer.double(), buffer.clone()
    reference_(expected, widened(weights), start, residual)
    here = BottleneckWeights(*(value.to(device) for value in vars(weights).values()))
    result = buffer.to(device)
    bottleneck_(result, here, start, residual)
    result = result.cpu()
    others = [c for c in range(buffer.shape[3]) if not start <= c < start + out]
    assert torch.equal(result[..., others], before[..., others])
    return float((result.double() - expected).abs().max())


TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}


@pytest.mark.parametrize("case", CASES)
def test_plain_torch_agrees_with_float64(case: tuple[int, ...]) -> None:
    if has_kernels(torch.device("cpu")):
        pytest.skip("here the kernels would answer")
    assert worst_error(case, torch.float32, "cpu") < TOLERANCE[torch.float32]


def test_kernels_agree_with_float64_in_the_interpreter() -> None:
    if find_spec("triton") is None:
        pytest.skip("this build of torch brings no Triton")
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(root)}
    run = subprocess.run(
        [sys.executable, __file__], env=environment, cwd=root, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("agrees") == len(CASES) + 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("case", CASES)
def test_kernels_agree_with_float64_on_a_gpu(case: tuple[int, ...], dtype: torch.dtype) -> None:
    assert worst_error(case, dtype, "cuda") < TOLERANCE[dtype]


def test_the_fused_network_agrees_with_the_plain_one() -> None:
    for config in (MesrganConfig(blocks=2), MesrganConfig(blocks=1, expansion=2, upsampler="full")):
        model = create(config)
        model.reset_parameters(torch.Generator().manual_seed(0))
        folded = model.eval().fold()
        batch = torch.rand(2, 3, 9, 14, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            assert (fused.prepare(folded, torch.float32)(batch) - folded(batch)).abs().max() < 1e-4


def test_layers_that_would_overwrite_their_input_are_refused() -> None:
    buffer, weights = random_case(CASES[0], torch.float32)
    with pytest.raises(ValueError, match="do not fit"):
        bottleneck_(buffer, weights, 80)
    with pytest.raises(ValueError, match="overwrite"):
        bottleneck_(buffer, weights, 0)


if __name__ == "__main__":
    # In a process of its own, because Triton decides on its interpreter when a kernel is defined.
    for one in CASES:
        error = worst_error(one, torch.float32, "cpu")
        assert error < TOLERANCE[torch.float32], (one, error)
        print(one, "agrees")
    # Triton 3.9's interpreter multiplies the bits of bf16 as integers: that precision needs a GPU.
    error = worst_error(CASES[0], torch.float16, "cpu")
    assert error < TOLERANCE[torch.float16], error
    print("fp16 agrees")
