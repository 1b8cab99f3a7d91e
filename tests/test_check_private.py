"""The check that keeps private names private."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tools.check_private import main, private_uses

ROOT = Path(__file__).resolve().parents[1]


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
        (
            "class A:\n    def __init__(self):\n        self._x = 1\n    def same(self, other):\n        return other._x",
            [],
        ),
        ("class A:\n    def f(self):\n        return self._inherited", []),
        ("_x = 1\nprint(_x)", []),
        ("from __future__ import annotations\nprint(a.__class__)", []),
    ],
)
def test_what_is_found(code: str, found: list[str]) -> None:
    assert [name for _, name in private_uses(ast.parse(code))] == found


def test_the_code_has_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["sr_cli", "tools"]) == 0, capsys.readouterr().out
