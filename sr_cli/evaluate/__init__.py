"""The evaluation job: images in, scores under a stated convention out."""

from sr_cli.evaluate.job import EvalEvent, EvalOptions, Evaluation, ImageScores, ModelScores, exit_code, run

__all__ = ["EvalEvent", "EvalOptions", "Evaluation", "ImageScores", "ModelScores", "exit_code", "run"]
