"""The benchmark job: forward passes of several models, precisions and backends, timed side by side.

`options` say what to time, `job` does it, `timing` holds the clocks, `results` what was measured, `published` the
times that ours are compared with.
"""
