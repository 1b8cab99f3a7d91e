"""The manifest's schema, and loading weights by name and by path."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from sr_cli import models, weights
from sr_cli.errors import UsageError, WeightsError
from sr_cli.models.esrgan import EsrganConfig
from sr_cli.models.mesrgan import MesrganConfig
from sr_cli.models.srgan import SrganConfig
from sr_cli.weights import manifest

SMALL = {
    "srgan": SrganConfig(blocks=2, features=8),
    "esrgan": EsrganConfig(blocks=2, features=8, growth=4),
    "mesrgan": MesrganConfig(blocks=2, features=8, growth=4),
    "mesrgan-poster": MesrganConfig(blocks=3, features=8, growth=4, expansion=2, upsampler="full"),
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SRUP_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "weights").mkdir(parents=True)
    return tmp_path / "home"


def small_generator(name: str = "mesrgan", seed: int = 0) -> models.Generator:
    generator = models.create(SMALL[name]).eval()
    generator.reset_parameters(torch.Generator().manual_seed(seed))
    return generator


def stage_dict(path: Path, **changes: Any) -> dict[str, Any]:
    data = path.read_bytes()
    return {
        "file": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "licence": "MIT",
        **changes,
    }


@pytest.fixture
def mine(home: Path) -> dict[str, Any]:
    """A user manifest with one model, `mine`, of one stage, stored as fp16; written by `write`."""
    generator = small_generator()
    save_file({k: v.half() for k, v in generator.state_dict().items()}, home / "weights" / "mine-pixel.safetensors")
    return {
        "schema": 1,
        "models": {
            "mine": {
                "summary": "small",
                "config": SMALL["mesrgan"].to_dict(),
                "scale": 4,
                "default_stage": "pixel",
                "stages": {"pixel": stage_dict(home / "weights" / "mine-pixel.safetensors", overlap=12)},
            }
        },
    }


def write(home: Path, document: Any) -> None:
    (home / "manifest.json").write_text(json.dumps(document), "utf-8")


def test_builtin_manifest_is_valid_and_agrees_with_the_presets() -> None:
    built_in = manifest.read_file(manifest.builtin_path(), manifest.PACKAGE / "bundled")
    assert set(models.PRESETS) <= set(built_in.models)
    for name, config in models.PRESETS.items():
        assert dict(built_in.models[name].config) == config.to_dict()
    for entry in built_in.models.values():
        for stage in entry.stages.values():
            path = entry.path(stage)
            if path is not None:
                data = path.read_bytes()
                assert (hashlib.sha256(data).hexdigest(), len(data)) == (stage.sha256, stage.size)
    assert manifest.parse(manifest.dump(built_in.models), "x", manifest.PACKAGE / "bundled") == built_in


def test_loads_half_precision_by_name_as_fp32(home: Path, mine: dict[str, Any]) -> None:
    write(home, mine)
    loaded = weights.load("mine")
    assert (loaded.name, loaded.stage, loaded.overlap) == ("mine", "pixel", 12)
    assert getattr(loaded.entry, "origin", None) == "user"
    assert loaded.path == home / "weights" / "mine-pixel.safetensors"
    assert not loaded.generator.training
    assert {p.dtype for p in loaded.generator.parameters()} == {torch.float32}
    expected = {k: v.half().float() for k, v in small_generator().state_dict().items()}
    torch.testing.assert_close(loaded.generator.state_dict(), expected, rtol=0, atol=0)
    assert weights.load("mine:pixel").sha256 == loaded.sha256


def test_a_known_file_given_by_path_keeps_what_the_manifest_knows(home: Path, mine: dict[str, Any]) -> None:
    write(home, mine)
    loaded = weights.load(str(home / "weights" / "mine-pixel.safetensors"))
    assert (loaded.stage, loaded.overlap) == ("pixel", 12)
    assert getattr(loaded.entry, "name", None) == "mine"


@pytest.mark.parametrize("name", SMALL)
def test_own_families_are_recognised_from_their_tensors(name: str, tmp_path: Path) -> None:
    generator = small_generator(name)
    path = tmp_path / "Some File.safetensors"
    save_file(generator.state_dict(), path)
    loaded = weights.load(path)
    assert loaded.generator.config == SMALL[name]
    assert (loaded.name, loaded.stage, loaded.entry) == ("Some File", None, None)
    x = torch.rand(1, 3, 12, 10)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.generator(x), generator(x))


def test_unknown_names_are_answered_with_the_close_and_the_known() -> None:
    with pytest.raises(WeightsError, match=r"unknown model 'mesrgn'; did you mean mesrgan\? known: .*remacri"):
        weights.load("mesrgn")
    with pytest.raises(WeightsError, match="no stage 'pixl'; it has: gan"):
        weights.load("remacri:pixl")
    with pytest.raises(WeightsError, match="no weights yet for mesrgan-poster: train some with"):
        weights.load("mesrgan-poster")


def test_damaged_files(home: Path, mine: dict[str, Any], tmp_path: Path) -> None:
    write(home, mine)
    path = home / "weights" / "mine-pixel.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(WeightsError, match="is damaged: its sha256"):
        weights.load("mine")
    for bad in (b"", b"not safetensors at all", data[: len(data) // 2], data[:3]):
        (tmp_path / "bad.safetensors").write_bytes(bad)
        with pytest.raises(WeightsError, match=r"bad\.safetensors is not a readable safetensors file"):
            weights.load(tmp_path / "bad.safetensors")
    with pytest.raises(WeightsError, match="no weights file"):
        weights.load(str(tmp_path / "missing.safetensors"))
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(WeightsError, match="cannot read the weights file"):
        weights.load(tmp_path / "folder.safetensors")
    (tmp_path / "x.pth").write_bytes(b"anything")
    with pytest.raises(WeightsError, match="srup models convert"):
        weights.load(tmp_path / "x.pth")


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = small_generator().state_dict()
    del state["head.bias"]
    state["tail.extra"] = torch.zeros(1)
    state["trunk_conv.weight"] = torch.zeros(8, 8, 5, 5)
    save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(
        WeightsError, match=r"missing head\.bias; unexpected tail\.extra; of other shape trunk_conv"
    ) as error:
        weights.load(tmp_path / "odd.safetensors")
    assert "\n" not in str(error.value)
    save_file({f"layer{i}.w": torch.zeros(1) for i in range(9)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"not an architecture that srup knows.*layer0\.w, .* and 5 more"):
        weights.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("where", "change", "message"),
    [
        ("", {"schema": 2}, "schema 2 is not"),
        ("", {"schema": True}, "'schema' must be a whole number"),
        ("", {"extra": 1}, "unknown field 'extra'"),
        ("models.mine", {"summary": None}, "model 'mine': field 'summary' must be text"),
        ("models.mine", {"config": {}}, "model 'mine', config: field 'family' is missing"),
        ("models.mine", {"default_stage": "gan"}, "model 'mine': field 'default_stage' must be one of"),
        ("models.mine", {"colour": 1}, "model 'mine': unknown field 'colour'"),
        ("models.mine.stages.pixel", {"sha256": "abc"}, "stage 'pixel': field 'sha256' must be 64 hex"),
        ("models.mine.stages.pixel", {"size": "12"}, "field 'size' must be a whole number"),
        ("models.mine.stages.pixel", {"file": "../x.safetensors"}, "field 'file' must be the plain name"),
        ("models.mine.stages.pixel", {"file": None}, "needs a 'file' or a 'hub'"),
        ("models.mine.stages.pixel", {"hub": {"repo": "a/b", "revision": "main", "file": "x"}}, "a full commit"),
        ("models.mine.stages.pixel", {"scores": {"set5": {"psnr_y": "31"}}}, "'psnr_y' must be a number"),
        ("models.mine.stages.pixel", {"scores": {"set5": {"psnr_y": float("inf")}}}, "'psnr_y' must be a number"),
        ("models.mine.stages.pixel", {"scores": {"a": {}, "set5": 3}}, "scores: field 'set5' must be an object, not 3"),
        ("models.mine.stages.pixel", {"training": {"steps": 3}}, "training: field 'data' is missing"),
        ("models.mine.stages.pixel", {"bf16_share": 1.5}, "'bf16_share' must be a number from 0 to 1, not 1.5"),
        ("models.mine.stages.pixel", {"teacher": {"sha256": "0" * 64}}, "teacher: field 'owner' is missing"),
        ("models.mine", {"style": {"loud": "pixel"}}, "style: each field's name must be one of natural, crisp"),
        (
            "models.mine",
            {"style": {"crisp": "best"}},
            "style: field 'crisp' must be one of pixel, photo, gan, not 'best'",
        ),
        ("models.mine", {"style": {"crisp": "gan"}}, r"style: field 'crisp' must be one of its stages \(pixel\)"),
    ],
)
def test_manifest_errors_name_model_and_field(
    home: Path, mine: dict[str, Any], where: str, change: dict[str, Any], message: str
) -> None:
    target = mine
    for key in filter(None, where.split(".")):
        target = target[key]
    target.update(change)
    write(home, mine)
    with pytest.raises(WeightsError, match=message) as error:
        weights.load("mine")
    assert str(home / "manifest.json") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "missing", ["summary", "config", "scale", "stages", "stages.pixel.sha256", "stages.pixel.licence"]
)
def test_a_missing_field_is_named(home: Path, mine: dict[str, Any], missing: str) -> None:
    target = mine["models"]["mine"]
    *parents, key = missing.split(".")
    for parent in parents:
        target = target[parent]
    del target[key]
    write(home, mine)
    with pytest.raises(WeightsError, match=f"field '{key}' is missing"):
        weights.load("mine")


def test_fields_that_are_null_or_left_out_are_the_same(home: Path, mine: dict[str, Any]) -> None:
    write(home, mine)
    short = weights.read_manifest().models["mine"]
    assert json.loads(manifest.dump({"mine": short}))["models"]["mine"]["stages"]["pixel"]["teacher"] is None
    (home / "manifest.json").write_text(manifest.dump({"mine": short}), "utf-8")
    assert weights.read_manifest().models["mine"] == short
    assert (short.style, short.stages["pixel"].scores, short.stages["pixel"].bf16_share) == ({}, {}, None)


def test_style_is_a_stage(home: Path, mine: dict[str, Any], tmp_path: Path) -> None:
    mine["models"]["mine"]["style"] = {"natural": "pixel"}
    write(home, mine)
    assert weights.styled("mine", "natural") == "mine:pixel"
    assert weights.styled("mesrgan", "crisp") == "mesrgan:gan"
    with pytest.raises(UsageError, match=r"--style crisp: mine has only natural; leave --style out"):
        weights.styled("mine", "crisp")
    with pytest.raises(UsageError, match="has no styles"):
        weights.styled("remacri", "crisp")
    for spec in ("mine:pixel", "bicubic", "x.safetensors", str(tmp_path)):
        with pytest.raises(UsageError, match="leaves no choice"):
            weights.styled(spec, "crisp")
    with pytest.raises(WeightsError, match="did you mean mesrgan"):
        weights.styled("mesrgn", "crisp")


@pytest.mark.parametrize(
    ("spec", "name", "stage", "label"),
    [
        ("mesrgan", "mesrgan", None, "mesrgan"),
        ("mesrgan:gan", "mesrgan", "gan", "mesrgan-gan"),
        ("a/b/4x-Thing.safetensors", "4x-Thing", None, "4x-Thing"),
        ("runs/mine", "mine", None, "mine"),
        ("runs/mine/", "mine", None, "mine"),
        ("runs/mine:gan", "mine", "gan", "mine-gan"),
        ("runs/a:b", "a:b", None, "a:b"),
    ],
)
def test_specs(spec: str, name: str, stage: str | None, label: str) -> None:
    parsed = weights.parse_spec(spec)
    assert (parsed.name, parsed.stage, parsed.label) == (name, stage, label)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data())
def test_a_manifest_with_anything_anywhere_is_read_or_refused_in_one_line(data: st.DataObject) -> None:
    document = json.loads(manifest.builtin_path().read_text("utf-8"))
    target, key = document, data.draw(st.sampled_from(sorted(document)))
    while isinstance(target[key], dict) and target[key] and data.draw(st.booleans()):
        target = target[key]
        key = data.draw(st.sampled_from(sorted(target)))
    target[key] = data.draw(_JSON)
    read, message = _parsed(json.dumps(document))
    if read is None:
        assert message.startswith("here")
        assert "\n" not in message
    else:
        assert _parsed(manifest.dump(read.models))[0] == read


def _parsed(text: str) -> tuple[manifest.Manifest | None, str]:
    try:
        return manifest.parse(text, "here", Path("nowhere")), ""
    except WeightsError as error:
        return None, str(error)


def test_a_configuration_that_makes_no_network_is_named(home: Path, mine: dict[str, Any]) -> None:
    mine["models"]["mine"]["config"]["blocks"] = 0
    write(home, mine)
    with pytest.raises(WeightsError, match="entry of mine: mesrgan: blocks must be at least 1"):
        weights.load("mine")


def test_a_manifest_that_is_not_json_is_named(home: Path) -> None:
    (home / "manifest.json").write_text("{", "utf-8")
    with pytest.raises(WeightsError, match="not JSON"):
        weights.read_manifest()


def test_importing_and_reading_the_manifest_needs_no_torch() -> None:
    code = "import sys, sr_cli.weights as w; w.read_manifest(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
