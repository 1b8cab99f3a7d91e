"""`srup doctor`: checks the installation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_cli.cli.console import Console, JsonConsole

if TYPE_CHECKING:
    from sr_cli.doctor import Diagnosis


def doctor(console: JsonConsole) -> int:
    """Check this installation: versions, devices, backends, folders, weights and a small test.

    Downloads nothing. The exit code is 0 if all is well, 4 if weights are damaged, 1 otherwise.
    """
    from sr_cli.doctor import examine

    diagnosis = examine()
    if console.json:
        console.document({"ok": not diagnosis.problems, **vars(diagnosis)})
    else:
        _tell(console, diagnosis)
    for problem in diagnosis.problems:
        console.error(problem)
    return diagnosis.exit_code


def _tell(console: Console, diagnosis: Diagnosis) -> None:
    """Print a heading and its lines, for each kind of finding."""
    from sr_cli.storage import format_bytes

    choice = diagnosis.choice
    versions = [f"{name} {number}" for name, number in diagnosis.versions.items()]
    sections = {"Versions": [", ".join(versions[:3]), ", ".join(versions[3:])]}
    if diagnosis.missing:
        missing = [f"{name} (pip install '{extra}')" for name, extra in diagnosis.missing.items()]
        sections["Optional, not installed"] = [", ".join(missing)]
    devices = sections["Devices"] = []
    for device in diagnosis.devices:
        total = "" if device.total_bytes is None else f" of {format_bytes(device.total_bytes)}"
        used = ", used by default" if choice and device.name in (choice.device, f"{choice.device}:0") else ""
        devices.append(f"{device.name}: {device.description}, {format_bytes(device.free_bytes)}{total} free{used}")
    if choice is not None:
        threads = "thread" if choice.threads == 1 else "threads"
        sections["Used by default"] = [f"{choice.label}, {choice.threads} CPU {threads}", *choice.reasons]
    sections["Backends"] = [f"{name}: {reason or 'ready'}" for name, reason in diagnosis.backends.items()]
    sections["Folders"] = [
        f"{place.path}: {place.what}, {format_bytes(place.size)}, {format_bytes(place.free)} free"
        for place in diagnosis.places
    ]
    weights = [f"{result.name}:{result.stage}: {result.status}" for result in diagnosis.weights]
    sections["Weights"] = weights or ["none in the manifest"]
    test = diagnosis.self_test
    verdict = "ok" if test.ok else "failed"
    sections["Self-test"] = [f"{verdict}: {test.model}, {test.seconds:.2f} s, {test.detail}"]
    for title, lines in sections.items():
        console.data(title)
        for line in lines:
            console.data(f"  {line}")
    if not diagnosis.problems:
        console.data("All is well.")
