"""Prints PSNR and NIQE of a model for several values of fidelity: the table in docs/fidelity.md.

python tools/fidelity_table.py mesrgan:gan --data ../shared/data/test/Set14 --niqe-parameters ../shared/reference/niqe_pris_params.npz
"""  # noqa: E501

from __future__ import annotations

import argparse
from pathlib import Path

from sr_cli.evaluate import job as evaluate

METRICS = ("psnr_y", "ssim_y", "niqe")


def main() -> None:
    """Measure each fidelity and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--niqe-parameters", type=Path)
    parser.add_argument("--fidelity", type=float, nargs="+", default=[0.0, 0.25, 0.5, 0.75, 1.0])
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    print(f"| model | fidelity | PSNR Y, dB | SSIM Y | NIQE |  ({given.data.name})\n|---|---|---|---|---|")
    for model in given.models:
        for fidelity in given.fidelity:
            options = evaluate.EvalOptions(
                models=(model,),
                data=(given.data,),
                metrics=METRICS,
                fidelity=fidelity,
                device=given.device,
                niqe_parameters=given.niqe_parameters,
                fresh=True,
            )
            found = evaluate.run(options, lambda _event: None).results[0].metrics
            values = [(found.get(name), digits) for name, digits in zip(METRICS, (2, 4, 2), strict=True)]
            shown = ["–" if value is None else f"{value:.{digits}f}" for value, digits in values]
            print(f"| `{model}` | {fidelity:g} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
