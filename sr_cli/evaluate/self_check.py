"""Checks whether this installation reproduces the official scores of the metrics that need no reference.

The images and scores are the calibration set of IQA-PyTorch: five distorted images that the metrics'
authors' MATLAB code was run on.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sr_cli import datasets, hub, storage
from sr_cli.errors import InputError
from sr_cli.evaluate import learned
from sr_cli.evaluate.protocols import STANDARD
from sr_cli.evaluate.scores import score

SOURCE = (
    "https://raw.githubusercontent.com/chaofengc/IQA-PyTorch/b9dc8b84174cff0bfe9aa4bfa09ab38748cfa9e8/"
    "ResultsCalibra/dist_dir"
)
_SIZE = 589_878

CHECKSUMS: Mapping[str, str] = {
    "I03.bmp": "bb817e7fef614dcc12b3a99af33ce3d201bc4d56c4827254c0bcc4fa6ea11151",
    "I04.bmp": "f3d685983aacd76b2c131579ea60cee345205a1169a4bd2ff5f3039ecf81729e",
    "I06.bmp": "726e043e99d8e07235c2535107d4bb6fc85bad0cb3cc7d6ba3ecf3364ac97539",
    "I08.bmp": "8ad39042d7e17d6c96ecfd8c4b9f0e98c803b303a92d368ef57bc9c3c40f5330",
    "I19.bmp": "e0c6000652d270d1c39b7094761d01e14695fc5aa7cb76b945be6391327ee886",
}
"""The images, and the sha256 of each file."""

OFFICIAL: Mapping[str, tuple[float, ...]] = {
    "niqe": (15.7536, 3.6549, 3.2355, 3.1840, 8.6352),
    "nrqm": (1.3894, 8.9394, 8.9735, 6.8290, 6.3120),
    "pi": (11.9235, 3.0720, 2.6180, 2.8074, 6.7713),
}
"""The authors' scores of the images, in their order."""

TOLERANCE = 0.01  #: Relative deviation that counts as agreement.
_WIDER = {("niqe", "I19.bmp"): 0.06}
"""Much of I19 is flat, and rounding decides NIQE there: other implementations are off by 5 %."""


@dataclass(frozen=True)
class Check:
    """One score next to the official one."""

    image: str  #: The calibration image.
    metric: str  #: `niqe`, `nrqm` or `pi`.
    official: float  #: Value of the authors' code.
    ours: float | None  #: Value of this installation; None if it cannot be computed.
    reason: str | None  #: Why it cannot.
    tolerance: float  #: Relative deviation that counts as agreement.

    @property
    def agrees(self) -> bool:
        """Whether the score is reproduced."""
        return self.ours is not None and abs(self.ours / self.official - 1) <= self.tolerance


def run(
    folder: Path | None = None,
    niqe_file: Path | None = None,
    nrqm_file: Path | None = None,
    *,
    offline: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> list[Check]:
    """Compute all scores of all calibration images.

    `folder` holds the images, else they are downloaded. Raises InputError if they are not available or are
    not the expected files; what a metric needs and lacks is in the checks.
    """
    folder = folder or fetch_images(storage.cache_folder() / "calibration", offline)
    found = learned.load(tuple(OFFICIAL), learned.MetricFiles(niqe_file, nrqm_file), offline=offline, note=note)
    checks = []
    for i, (name, sha256) in enumerate(CHECKSUMS.items()):
        path = next((p for p in (folder / name, folder / "dist_dir" / name) if p.is_file()), folder / name)
        if not path.is_file() or storage.sha256_of_file(path) != sha256:
            raise InputError(f"{path} is not the calibration image of that name; it is at {SOURCE}/{name}")
        pixels = datasets.read_rgb(path)
        values, reasons = score(pixels, pixels, STANDARD, tuple(OFFICIAL), found)
        for metric, official in OFFICIAL.items():
            tolerance = _WIDER.get((metric, name), TOLERANCE)
            checks.append(Check(name, metric, official[i], values[metric], reasons.get(metric), tolerance))
    return checks


def fetch_images(folder: Path, offline: bool = False) -> Path:
    """Return `folder` with the calibration images, downloaded and verified where missing. Raises InputError."""
    advice = "with a local copy use --data FOLDER"
    for name, sha256 in CHECKSUMS.items():
        target = folder / name
        if target.is_file() and storage.sha256_of_file(target) == sha256:
            continue
        url = f"{SOURCE}/{name}"
        if offline or hub.is_offline():
            raise InputError(f"the calibration images (2.9 MB at {SOURCE}) are not here, and offline; {advice}")
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                data = answer.read(_SIZE + 1)
        except OSError as error:
            raise InputError(f"cannot download {url} ({error}); {advice}") from None
        if storage.sha256_of_bytes(data) != sha256:
            raise InputError(f"{url} is not the expected file; {advice}")
        storage.write_file(target, data)
    return folder


def verdict(checks: list[Check]) -> str:
    """Return one line for people."""
    agreeing = {metric: all(c.agrees for c in checks if c.metric == metric) for metric in OFFICIAL}
    reasons: dict[str, list[str]] = {}
    for check in checks:
        if check.reason and check.metric not in reasons.setdefault(check.reason, []):
            reasons[check.reason].append(check.metric)
    missing = [metric for metrics in reasons.values() for metric in metrics]
    parts = [f"reproduces the official scores of {_names([m for m, good in agreeing.items() if good])}"]
    if wrong := [m for m, good in agreeing.items() if not good and m not in missing]:
        parts.append(f"does NOT reproduce those of {_names(wrong)}")
    parts += [f"could not compute {_names(metrics)} ({reason})" for reason, metrics in reasons.items()]
    return f"this installation {'; it '.join(parts)}"


def _names(metrics: list[str]) -> str:
    return ", ".join(metric.upper() for metric in metrics) or "none"
