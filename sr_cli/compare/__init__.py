"""The compare job: one photo enlarged by several models, and a page to look at them side by side.

`job.run` compares, `options.CompareOptions` says what.
"""
