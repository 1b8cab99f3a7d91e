"""The Triton kernels compiled for GPUs that need not be there: they fit, spill nothing and use the matrix units."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [pytest.mark.slow, pytest.mark.needs("triton")]

SHARED_MEMORY = {75: 64, 80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
"""KiB for one block of threads, by compute capability (CUDA C++ Programming Guide, technical specifications)."""
POINTERS = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}
NUMBERS = ("pixels", "height", "width", "buffer_stride", "start")
MATRIX_UNITS = re.compile(r"mma\.sync|wgmma\.mma_async|tcgen05\.mma")


def compiled(kernel: Any, dtype: torch.dtype, constants: dict[str, Any], capability: int) -> Any:
    """Compiles a kernel as its launch on a GPU of that capability would."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    signature, attributes = {}, {}
    for index, name in enumerate(names):
        if name in constants:
            signature[name] = "constexpr"
            continue
        kind = "i32" if name in NUMBERS else "*fp32" if name.endswith("bias") else POINTERS[dtype]
        signature[name] = kind
        if name not in ("height", "width"):  # a launch finds that the others are multiples of 16
            attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(
        kernel, signature, {(names.index(n),): v for n, v in constants.items() if n in names}, attributes
    )
    options = {name: constants[name] for name in ("num_warps", "num_stages")}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def spilled_bytes(binary: bytes, folder: Path) -> int:
    """Give what each thread keeps in memory because its registers do not suffice."""
    import triton

    path = folder / "kernel.cubin"
    path.write_bytes(binary)
    command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(path)]
    usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"STACK:(\d+)", usage)
    assert found, usage
    return int(found[1])


CASES = [(torch.float16, capability) for capability in SHARED_MEMORY]
CASES += [(dtype, capability) for dtype in (torch.bfloat16, torch.float32) for capability in (80, 90, 120)]


# The layers that append most and that adds.
@pytest.mark.parametrize(("channels", "out"), [(160, 32), (192, 64)])
@pytest.mark.parametrize(("dtype", "capability"), CASES, ids=lambda value: str(value).removeprefix("torch."))
def test_kernels_compile(dtype: torch.dtype, capability: int, channels: int, out: int, tmp_path: Path) -> None:
    from sr_cli.inference.backends.bottleneck_kernels import depthwise_project_kernel, expand_kernel, launch_options

    expand, project = launch_options(channels, channels, out, dtype)
    project["residual"] = out == 64
    for kernel, constants in ((expand_kernel, expand), (depthwise_project_kernel, project)):
        result = compiled(kernel, dtype, constants, capability)
        assert result.metadata.shared <= SHARED_MEMORY[capability] * 1024
        code = result.asm["ptx"]
        if capability >= 80:  # Triton 3.8 has no matrix units for 75, where it spills as well
            # fp32 is exact, and on Ampere its registers are just too few.
            assert spilled_bytes(result.asm["cubin"], tmp_path) <= (128 if dtype == torch.float32 else 0)
            assert bool(MATRIX_UNITS.search(code)) == (dtype != torch.float32)
        if dtype == torch.float16 and kernel is depthwise_project_kernel:
            # The nine taps; two channels at a time, by LLVM or, for Ampere, by ptxas.
            assert re.search(r"fma\.rn\.f16(x2)?\b", code)
            assert "fma.rn.f32" not in code or capability < 80
