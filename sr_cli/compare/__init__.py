"""The compare job: enlarges a photo with several models and writes a page that shows them side by side.

`job.run` compares, `options.CompareOptions` says what.
"""
