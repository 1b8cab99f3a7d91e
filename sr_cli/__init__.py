"""srup: upscales photos by 4 with SRGAN, ESRGAN and MESRGAN generators.

    from sr_cli import Upscaler
    large = Upscaler("mesrgan")(small)

Nothing heavy is imported before `Upscaler` is looked up, and no torch before a network is built.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sr_cli.errors import SrupError as SrupError
    from sr_cli.inference import EngineResult as EngineResult
    from sr_cli.inference import Upscaler as Upscaler

__version__ = "0.1.0"
__all__ = ["EngineResult", "SrupError", "Upscaler", "__version__"]

_HOMES = {"EngineResult": "sr_cli.inference", "SrupError": "sr_cli.errors", "Upscaler": "sr_cli.inference"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
