"""What training minimises: `pixel` compares pictures, `adversarial` asks the discriminator.

The distance between feature maps is in `metrics.features`: evaluation reports it as well.
"""
