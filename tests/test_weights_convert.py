"""From pickles to safetensors: what is understood, what is refused, and that nothing in them is run."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sr_cli import weights
from sr_cli.errors import OutputError, WeightsError
from sr_cli.weights.convert import convert
from tests.test_rrdbnet import new_style, old_style

STATE = new_style(1, 2, 8, 4)


@pytest.mark.parametrize(
    ("wrapped", "unwrapped", "dropped"),
    [
        (STATE, (), ()),
        ({"params": STATE}, ("params",), ()),
        ({"params_ema": STATE, "params": {"x": torch.zeros(1)}}, ("params_ema",), ("params (1 entries)",)),
        ({"state_dict": STATE, "epoch": 3}, ("state_dict",), ("epoch (int)",)),
        (
            {"state_dict": {"params": STATE}, "optimizer": {"state": {}}},
            ("state_dict", "params"),
            ("optimizer (1 entries)",),
        ),
        ({f"module.{key}": value for key, value in STATE.items()}, ("module.",), ()),
        ({"params": {f"module._orig_mod.{k}": v for k, v in STATE.items()}}, ("params", "module.", "_orig_mod."), ()),
        ({**STATE, "note": "hello"}, (), ("note (str)",)),
        (old_style(STATE, 1, 2), (), ()),
    ],
)
def test_understands_what_trainers_write(tmp_path: Path, wrapped: Any, unwrapped: Any, dropped: Any) -> None:
    torch.save(wrapped, tmp_path / "in.pth")
    done = convert(tmp_path / "in.pth", tmp_path / "out.safetensors")
    assert (done.unwrapped, done.dropped, done.tensors, done.family) == (unwrapped, dropped, len(STATE), "rrdbnet")
    generator = weights.load(tmp_path / "out.safetensors").generator
    assert torch.equal(generator.get_parameter("head.weight"), STATE["conv_first.weight"])


def test_views_and_halves_keep_their_values(tmp_path: Path) -> None:
    base = torch.arange(24.0).view(4, 6)
    torch.save({"a": base.t(), "b": base[1:, ::2], "half": base.half()}, tmp_path / "in.pt")
    convert(tmp_path / "in.pt", tmp_path / "out.safetensors")
    back = load_file(tmp_path / "out.safetensors")
    assert torch.equal(back["a"], base.t())
    assert torch.equal(back["b"], base[1:, ::2])
    assert back["half"].dtype == torch.float16


def test_the_old_file_format_is_understood(tmp_path: Path) -> None:
    torch.save({"params": STATE}, tmp_path / "in.pth", _use_new_zipfile_serialization=False)
    assert convert(tmp_path / "in.pth", tmp_path / "out.safetensors").tensors == len(STATE)


class Malice:
    """Unpickling it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["zip", "legacy", "plain pickle"])
def test_a_malicious_pickle_does_nothing_and_is_refused(tmp_path: Path, form: str) -> None:
    victim = tmp_path / "victim"
    content = {"params": {**STATE, "extra": Malice(victim)}}
    if form == "plain pickle":
        (tmp_path / "evil.pth").write_bytes(pickle.dumps(Malice(victim)))
    else:
        torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(WeightsError, match=r"evil\.pth is (refused|not a readable)") as error:
        convert(tmp_path / "evil.pth", tmp_path / "out.safetensors")
    assert "\n" not in str(error.value)
    assert not victim.exists()
    assert not (tmp_path / "out.safetensors").exists()
    # The same file, were it unpickled: the test would notice.
    torch.load(tmp_path / "evil.pth", weights_only=False) if form != "plain pickle" else pickle.loads(
        (tmp_path / "evil.pth").read_bytes()
    )
    assert victim.exists()


def test_m_never_unpickles_in_passing(tmp_path: Path) -> None:
    torch.save({"params": Malice(tmp_path / "victim")}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="srup models convert"):
        weights.load(tmp_path / "evil.pth")
    assert not (tmp_path / "victim").exists()


def test_what_cannot_be_converted_is_named(tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    with pytest.raises(WeightsError, match="no file"):
        convert(tmp_path / "missing.pth", target)
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(WeightsError, match=r"text\.pth is (not a readable PyTorch file|refused)"):
        convert(tmp_path / "text.pth", target)
    torch.save({"params": STATE}, tmp_path / "in.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "in.pth").read_bytes()[:5000])
    with pytest.raises(WeightsError, match=r"cut\.pth is not a readable"):
        convert(tmp_path / "cut.pth", target)
    torch.save({"epoch": 3, "best": 1.0}, tmp_path / "none.pth")
    with pytest.raises(WeightsError, match=r"has no tensors; it holds epoch \(int\), best \(float\)"):
        convert(tmp_path / "none.pth", target)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="has no tensors; it holds a list"):
        convert(tmp_path / "list.pth", target)
    with pytest.raises(WeightsError, match=r"must end in \.safetensors"):
        convert(tmp_path / "in.pth", tmp_path / "out.pth")
    target.write_bytes(b"mine")
    with pytest.raises(OutputError, match="already exists"):
        convert(tmp_path / "in.pth", target)
    assert target.read_bytes() == b"mine"
    convert(tmp_path / "in.pth", target, overwrite=True)


def test_too_large_files_are_refused_also_packed(tmp_path: Path) -> None:
    torch.save({"params": STATE}, tmp_path / "in.pth")
    with pytest.raises(WeightsError, match=r"too large: 0 MB, the limit is 0 MB"):
        convert(tmp_path / "in.pth", tmp_path / "out.safetensors", size_limit=1000)
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50_000_000))
    assert (tmp_path / "bomb.pth").stat().st_size < 100_000
    with pytest.raises(WeightsError, match="too large: 50 MB"):
        convert(tmp_path / "bomb.pth", tmp_path / "out.safetensors", size_limit=10_000_000)
