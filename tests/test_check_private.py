"""The check that keeps private names private."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.check_private import main, private_uses

ROOT = Path(__file__).resolve().parents[1]


OTHER = """
class A:
    def __init__(self):
        self._x = 1
    def same(self, other):
        return other._x
"""
MARKED = "def f(norm):\n    return norm._u  # private: torch's"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from sr_cli.inference import _x", ["sr_cli.inference._x"]),
        ("from . import _x", ["None._x"]),
        ("import torch\ntorch._C._x()", []),
        ("from torch import nn\nnn.Module._x", []),
        ("def f(upscaler):\n    upscaler._tile = 3", ["upscaler._tile"]),
        ("def f(upscaler):\n    return upscaler.plan()._tile", ["upscaler.plan()._tile"]),
        ("from sr_cli import inference\ninference.Upscaler._tile", ["inference.Upscaler._tile"]),
        (OTHER, []),
        (MARKED, []),
        ("_x = 1\nprint(_x)", []),
        ("print(a.__class__, a._replace(b=1))", []),
    ],
)
def test_what_is_found(code: str, found: list[str]) -> None:
    assert [name for _, name in private_uses(code)] == found


def test_the_code_has_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["sr_cli", "tools"]) == 0, capsys.readouterr().out
