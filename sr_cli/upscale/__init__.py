"""The upscale job: photos in, enlarged photos out.

`batch.run` is the way in, `estimate.estimate` the way to ask first, `options.UpscaleOptions` what can be asked for.
`run` plans (`inputs`, `naming`), then reads, enlarges and writes several photos at a time (`batch`), keeping a journal
and claims, so that a batch can be interrupted, resumed, and shared between processes.
"""
