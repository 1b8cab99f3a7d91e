"""Losses: `pixel` compares images, `adversarial` uses the discriminator.

The distance between feature maps is in `metrics.features`: evaluation reports it as well.
"""
