"""The upscale job: photos in, enlarged photos out.

`batch.run` does a batch, `estimate.estimate` foresees one, `options.UpscaleOptions` what can be asked for.
`run` plans (`inputs`, `naming`) and hands the tasks to a `worker`, which reads, enlarges and writes several photos at
a time, or to several of them (`devices`); a `tally` collects what they say. A journal and claims let a batch be
interrupted, resumed, and shared between processes.
"""
