"""The evaluation job: images in, scores under a stated convention out.

`job.run` measures, `options.EvalOptions` says what; `tables` and `report` write what was found.
"""
