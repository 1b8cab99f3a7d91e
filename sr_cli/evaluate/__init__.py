"""The evaluation job: computes scores of models on images under a stated convention.

`job.run` measures, `options.EvalOptions` says what; `tables` and `report` write what was found.
"""
