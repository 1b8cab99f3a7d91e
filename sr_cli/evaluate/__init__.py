"""The evaluation job: images in, scores under a stated convention out."""

from sr_cli.evaluate.job import EvalEvent, run
from sr_cli.evaluate.options import EvalOptions
from sr_cli.evaluate.report import write_report
from sr_cli.evaluate.results import Evaluation, ImageScores, ModelScores, exit_code, image_dict
from sr_cli.evaluate.scores import DEFAULT_METRICS, METRICS, PROTOCOLS, expand
from sr_cli.evaluate.tables import write_csv

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "PROTOCOLS",
    "EvalEvent",
    "EvalOptions",
    "Evaluation",
    "ImageScores",
    "ModelScores",
    "exit_code",
    "expand",
    "image_dict",
    "run",
    "write_csv",
    "write_report",
]
