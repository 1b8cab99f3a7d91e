"""The benchmark job: forward passes of several models, precisions and backends, timed side by side.

`job.run` measures, `options.BenchOptions` says what.
"""
