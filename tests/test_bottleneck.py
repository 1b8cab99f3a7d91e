"""Every form of the bottleneck and its trunk against the network's own layers; kernels in Triton's interpreter."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from sr_cli.inference.backends import bottleneck_cpu, bottleneck_gpu, eager, fused
from sr_cli.inference.backends.bottleneck import BottleneckWeights, BufferedBottleneck, BufferedTrunk
from sr_cli.models import PRESETS, Generator, create
from sr_cli.models.mesrgan import UPSAMPLERS, Bottleneck, Mesrgan, MesrganConfig
from tests.networks import with_biases

# (channels, output channels, expansion, N, H, W, adds): MESRGAN's own widths and odd ones.
CASES = [
    (64, 32, 1, 1, 7, 9, False),
    (192, 64, 1, 1, 6, 5, True),
    (96, 32, 1, 2, 5, 3, False),
    (160, 32, 1, 1, 4, 33, False),
    (128, 32, 2, 1, 3, 3, False),
    (24, 8, 1, 3, 1, 1, False),
    (40, 24, 1, 1, 17, 13, True),
    (20, 7, 3, 1, 1, 130, False),
]
TORCH_FORMS = [bottleneck_cpu.Products, bottleneck_cpu.Convolutions, bottleneck_gpu.Products]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}


def worst_error(
    form: type[BufferedBottleneck], case: tuple[int, ...], dtype: torch.dtype, device: str = "cpu"
) -> float:
    """Give the largest difference from float64; also check that no other channel is touched."""
    channels, out, expansion, count, height, width, adds = case
    torch.manual_seed(0)
    layer = Bottleneck(channels, out, expansion)
    torch.nn.init.zeros_(layer.project.bias)  # the trunk's
    weights = BottleneckWeights.of(layer, dtype)
    spare = torch.randn(count, height, width, channels + out + 3)
    buffer = torch.cat([torch.ones(count, height, width, form.ones), spare], 3).to(dtype).to(device)
    before = buffer.cpu().clone()
    one = form(BottleneckWeights(*(value.to(device) for value in vars(weights).values())))
    one.add(buffer) if adds else one.append(buffer)
    start = form.ones + (0 if adds else channels)
    rounded = layer.to(dtype).double()  # the weights that the form has
    with torch.no_grad():
        read = before[..., form.ones : form.ones + channels].double().permute(0, 3, 1, 2)
        expected = rounded(read).permute(0, 2, 3, 1) + (before[..., start : start + out].double() if adds else 0)
    result = buffer.cpu()
    others = [c for c in range(buffer.shape[3]) if not start <= c < start + out]
    assert torch.equal(result[..., others], before[..., others])
    return float((result[..., start : start + out].double() - expected).abs().max())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", TORCH_FORMS, ids=lambda form: f"{form.__module__.split('_')[-1]}-{form.__name__}")
def test_torch_forms_agree_with_float64(form: type[BufferedBottleneck], case: tuple[int, ...]) -> None:
    if form is not bottleneck_gpu.Products:
        case = (*case[:3], 1, *case[4:])  # a CPU takes one picture at a time
    assert worst_error(form, case, torch.float32) < TOLERANCE[torch.float32]


def in_the_interpreter(cases: int, networks: int) -> None:
    """Check the kernels in the first cases, and the first networks on them, where Triton interprets."""
    from sr_cli.inference.backends.bottleneck_kernels import Kernels

    for case in CASES[:cases]:
        error = worst_error(Kernels, case, torch.float32)
        assert error < TOLERANCE[torch.float32], (case, error)
        print(case, "agrees")
    # Triton 3.8's interpreter multiplies the bits of bf16 as integers: that precision needs a GPU.
    for case in CASES[:cases:6]:
        error = worst_error(Kernels, case, torch.float16)
        assert error < TOLERANCE[torch.float16], error
        print(case, "fp16 agrees")
    for folded in itertools.islice(folded_networks(features=16, growth=8), networks):
        batch = torch.rand(2, 3, 6, 7, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            assert (fused.prepare(folded, torch.float32)(batch) - folded(batch)).abs().max() < 1e-4
        print(folded.config, "agrees")


@pytest.mark.needs("triton")
@pytest.mark.parametrize(
    ("cases", "networks"), [(2, 1), pytest.param(len(CASES), len(UPSAMPLERS), marks=pytest.mark.slow)]
)
def test_kernels_agree_with_float64_in_the_interpreter(cases: int, networks: int) -> None:
    # In a process of its own, because Triton decides on its interpreter when a kernel is defined.
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, __file__, str(cases), str(networks)]
    run = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("agrees") == cases + len(CASES[:cases:6]) + networks


@pytest.mark.needs("cuda")
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("case", CASES)
def test_kernels_and_products_agree_with_float64_on_a_gpu(case: tuple[int, ...], dtype: torch.dtype) -> None:
    from sr_cli.inference.backends.bottleneck_kernels import Kernels

    assert worst_error(Kernels, case, dtype, "cuda") < TOLERANCE[dtype]
    assert worst_error(bottleneck_gpu.Products, case, dtype, "cuda") < TOLERANCE[dtype]


@pytest.mark.needs("triton")
def test_a_buffer_that_a_kernel_would_write_beyond_is_refused() -> None:
    from sr_cli.inference.backends.bottleneck_kernels import Kernels

    layer = Kernels(BottleneckWeights.of(Bottleneck(64, 32, 1), torch.float32))
    with pytest.raises(ValueError, match="64 channels in, 32 out at 64 do not fit"):
        layer.append(torch.zeros(1, 4, 4, 95))
    with pytest.raises(ValueError, match="not contiguous"):
        layer.append(torch.zeros(1, 4, 4, 200)[..., :100])


def folded_networks(**changes: int) -> Iterator[Generator]:
    """A network with each upsampler, folded."""
    for upsampler in UPSAMPLERS:
        expansion = 2 if upsampler == "full" else 1
        yield with_biases(create(MesrganConfig(blocks=1, expansion=expansion, upsampler=upsampler, **changes))).fold()


def small_trunk(name: str = "mesrgan", **changes: int) -> torch.nn.Module:
    model = with_biases(create(replace(PRESETS[name], blocks=3, **changes))).fold()
    assert isinstance(model, Mesrgan)
    return model.trunk


@pytest.fixture(params=[True, False], ids=["onednn", "plain"])
def onednn(request: pytest.FixtureRequest) -> Iterator[bool]:
    torch._C._set_mkldnn_enabled(request.param)
    yield request.param
    torch._C._set_mkldnn_enabled(True)


def relative_error(trunk: BufferedTrunk, blocks: torch.nn.Module, x: torch.Tensor) -> float:
    with torch.inference_mode():
        expected = blocks(x)
        return float((trunk(x) - expected).abs().max() / expected.abs().max())


@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize("form", TORCH_FORMS, ids=lambda form: f"{form.__module__.split('_')[-1]}-{form.__name__}")
@pytest.mark.parametrize("name", ["mesrgan", "mesrgan-poster"])
def test_the_trunk_agrees_with_its_blocks(name: str, form: type[BufferedBottleneck]) -> None:
    blocks = small_trunk(name)
    x = torch.randn(2, 64, 9, 12, generator=torch.Generator().manual_seed(1))
    trunk = BufferedTrunk(blocks, torch.float32, form)
    assert relative_error(trunk, blocks, x) < 1e-5
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):  # a caller's autocast changes nothing
        inside = trunk(x)
    with torch.inference_mode():
        assert torch.equal(inside, trunk(x))


@pytest.fixture
def uninitialised_is_nan() -> Iterator[None]:
    """Fill what is allocated and not written with NaN, so that whoever reads it gives NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(1).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("onednn", "uninitialised_is_nan")
@pytest.mark.parametrize("features", [64, 24])  # the preset's, and channels that are not a multiple of 32
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_this_processor_runs_reads_no_uninitialised_memory(dtype: torch.dtype, features: int) -> None:
    blocks = small_trunk(features=features)
    x = torch.randn(2, features, 9, 12, generator=torch.Generator().manual_seed(1))
    trunk = BufferedTrunk(blocks, dtype, bottleneck_cpu.layer_type(dtype))
    assert relative_error(trunk, blocks, x) < (0.1 if dtype == torch.bfloat16 else 1e-5)


# oneDNN's product of bf16 matrices reads beyond rows whose length is no multiple of 32.
def test_bf16_is_never_multiplied_with_rows_that_are_unsafe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bottleneck_cpu, "has_onednn", lambda dtype: True)
    monkeypatch.setattr(bottleneck_cpu, "_processor_maker", lambda: "GenuineIntel")
    form = bottleneck_cpu.layer_type(torch.bfloat16)
    assert form is bottleneck_cpu.Convolutions
    assert form.ones == 0
    for channels, safe in ((64, True), (160, True), (65, False), (80, False)):
        layer = form(BottleneckWeights.of(Bottleneck(channels, 32, 1), torch.bfloat16))
        assert isinstance(layer, bottleneck_cpu.Convolutions)
        assert layer.projects_by_product == safe
    wide = form(BottleneckWeights.of(Bottleneck(64, 32, 1), torch.float32))
    assert isinstance(wide, bottleneck_cpu.Convolutions)
    assert not wide.projects_by_product


@pytest.mark.parametrize(
    ("maker", "mkl", "form"),
    [
        ("vendor_id\t: GenuineIntel", True, bottleneck_cpu.Products),
        ("vendor_id\t: GenuineIntel", False, bottleneck_cpu.Convolutions),
        ("vendor_id\t: AuthenticAMD", True, bottleneck_cpu.Convolutions),
    ],
)
def test_products_are_chosen_where_mkl_is_fast(
    maker: str, mkl: bool, form: type[BufferedBottleneck], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bottleneck_cpu, "_processor_maker", lambda: maker)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
    assert bottleneck_cpu.layer_type(torch.float32) is form


# What bf16 does where oneDNN has it, in fp32, which it has everywhere: the activation in both convolutions, projections
# as products into slices of the buffer.
@pytest.mark.parametrize("case", [CASES[0], CASES[3]])
def test_convolutions_with_projections_by_product(case: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    class Mixed(bottleneck_cpu.Convolutions):
        def __init__(self, weights: BottleneckWeights) -> None:
            super().__init__(weights)
            self.projects_by_product, self._project = True, weights.project

    monkeypatch.setattr(bottleneck_cpu, "_BAND_BYTES", 1)
    assert worst_error(Mixed, (*case[:3], 1, 21, 6, case[6]), torch.float32) < TOLERANCE[torch.float32]


@settings(max_examples=40)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 12),
    count=st.integers(1, 2),
    size=st.integers(1, 2**14),
    form=st.sampled_from([bottleneck_cpu.Products, bottleneck_cpu.Convolutions, None]),
)
@example(height=57, width=3, count=1, size=1, form=bottleneck_cpu.Products)  # a last band of one row
def test_bands_of_rows_give_what_the_whole_gives(
    height: int, width: int, count: int, size: int, form: type[BufferedBottleneck] | None
) -> None:
    """Without a form: what this processor takes for bf16."""
    folded = with_biases(create(MesrganConfig(blocks=2, features=16, growth=8))).fold()
    assert isinstance(folded, Mesrgan)
    dtype = torch.bfloat16 if form is None else torch.float32
    trunk = BufferedTrunk(folded.trunk, dtype, form or bottleneck_cpu.layer_type(dtype))
    x = torch.randn(count, 16, height, width, generator=torch.Generator().manual_seed(height))
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(bottleneck_cpu, "_BAND_BYTES", 2**40)
        whole = trunk(x)
        patch.setattr(bottleneck_cpu, "_BAND_BYTES", size)
        # bf16 rounds by 0.4 %, and bands of other sizes may be summed up in another order.
        assert (trunk(x) - whole).abs().max() < (0.05 if form is None else 1e-5) * whole.abs().max()


def test_a_network_is_prepared_with_a_buffered_trunk() -> None:
    folded = next(folded_networks())
    network = eager.prepare(folded, torch.float32)
    assert isinstance(network, Mesrgan)
    assert isinstance(network.trunk, BufferedTrunk)
    assert folded is not network  # a copy of its own


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_on_the_second_gpu_everything_is_on_the_second_gpu(dtype: torch.dtype) -> None:
    # Tensors that have a device and a shape but no values: whatever is left on another device is an error.
    with FakeTensorMode():
        with torch.device("cuda:1"):
            network = create(MesrganConfig(blocks=2))
            x = torch.empty(4, 64, 24, 32, dtype=dtype)
        assert isinstance(network, Mesrgan)
        for block in network.trunk.children():
            block.residual_scaling = 1.0  # as fold() does, which such tensors do not allow
        with torch.inference_mode():
            result = BufferedTrunk(network.trunk, dtype, bottleneck_gpu.Products)(x)
        assert (result.shape, result.dtype, result.device) == (x.shape, dtype, torch.device("cuda:1"))


if __name__ == "__main__":
    in_the_interpreter(*map(int, sys.argv[1:]))
