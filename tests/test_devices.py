"""What `auto` stands for: precisions by the processor and the weights, and why."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_fidelity import fine_tuned, home, register

from sr_cli import inference, weights
from sr_cli.errors import UsageError
from sr_cli.inference import InferenceOptions, Processor, choose_precision, choose_setup, devices, processor
from tests.networks import SMALL, with_weights

__all__ = ["home"]

FAST = Processor("a processor that computes bf16 fast", has_fast_bf16=True)
PLAIN = Processor("one that does not")


@pytest.mark.parametrize(
    ("device", "share", "cpu", "expected", "why"),
    [
        ("cpu", 0.9995, FAST, "bf16", "99.950 %"),
        ("cpu", 0.999, FAST, "bf16", "twice"),
        ("cpu", 0.9989, FAST, "fp32", "fewer than 99.9 %"),
        ("cpu", None, FAST, "fp32", "not been measured"),
        ("cpu", 1.0, PLAIN, "fp32", "not known to be faster"),
        ("cuda", None, PLAIN, "fp16", "GPU"),
        ("mps", 1.0, FAST, "fp32", "not been measured"),
    ],
)
def test_auto(device: str, share: float | None, cpu: Processor, expected: str, why: str) -> None:
    precision, reason = choose_precision("auto", device, share, cpu)
    assert precision == expected and why in reason


@pytest.mark.parametrize("name", ["fp32", "fp16", "bf16"])
def test_what_is_asked_for_is_taken(name: str) -> None:
    assert choose_precision(name, "cpu", 1.0, FAST) == (name, "asked for")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UsageError, match="fp8"):
        choose_precision("fp8", "cpu")


@pytest.mark.parametrize(
    ("vendor", "flags", "fast"),
    [
        ("GenuineIntel", "fpu avx2 avx512f avx512_bf16 amx_bf16 amx_tile", True),
        ("AuthenticAMD", "fpu avx2 avx512f avx512_bf16", True),
        ("GenuineIntel", "fpu avx2 avx512f avx512_bf16", False),
        ("AuthenticAMD", "fpu avx2 sse4_2", False),
    ],
)
def test_the_processor_is_asked(
    vendor: str, flags: str, fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpuinfo"
    core = f"vendor_id\t: {vendor}\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: {flags}\n"
    file.write_text("\n".join(f"processor\t: {number}\n{core}" for number in range(2)))
    monkeypatch.setattr(processor, "_CPUINFO", file)
    assert processor.this_processor() == Processor("Some CPU @ 2 GHz", fast)


def test_a_system_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "none")
    found = processor.this_processor()
    assert found.name and not found.has_fast_bf16


@pytest.fixture
def measured(home: Path) -> None:
    """A model whose pixel stage keeps its values in bf16, and whose GAN stage does not."""
    pixel = with_weights(SMALL["mesrgan"])
    register(home, "mine", {"pixel": (pixel, None), "gan": (fine_tuned(pixel), "pixel")}, "pixel")
    manifest = home / "manifest.json"
    document = json.loads(manifest.read_text())
    stages = document["models"]["mine"]["stages"]
    stages["pixel"]["bf16_share"], stages["gan"]["bf16_share"] = 1.0, 0.99
    manifest.write_text(json.dumps(document))


@pytest.mark.usefixtures("measured")
def test_the_weights_manifest_entry_decides() -> None:
    def precision(model: weights.LoadedModel, cpu: Processor = FAST) -> str:
        return choose_setup(InferenceOptions(device="cpu"), model, cpu).precision

    assert precision(weights.load("mine")) == "bf16"
    assert precision(weights.load("mine"), PLAIN) == "fp32"
    assert precision(weights.load("mine:gan")) == "fp32"
    # A blend of two stages is neither of them: nothing has been measured.
    assert precision(weights.load_blend("mine", 0.5)) == "fp32"


@pytest.mark.usefixtures("measured")
def test_bf16_by_auto_gives_what_fp32_gives_within_a_level(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    monkeypatch.setattr(devices, "this_processor", lambda: PLAIN)
    plain = inference.Upscaler("mine", device="cpu", backend="eager").upscale(pixels)
    monkeypatch.setattr(devices, "this_processor", lambda: FAST)
    found = inference.Upscaler("mine", device="cpu", backend="eager").upscale(pixels)
    assert (plain.setup.precision, found.setup.precision) == ("fp32", "bf16")
    apart = np.abs(found.pixels.astype(int) - plain.pixels)
    assert (apart <= 1).mean() >= 0.999
    assert any("twice" in reason for reason in found.setup.reasons)
