"""Times that Eriksson and Löf published, "Lightweight Super-Resolution", Table 1."""

PUBLISHED_MS = {
    "srgan": {1: 26, 2: 50, 4: 134, 8: 279, 16: 561},
    "esrgan": {1: 33, 2: 62, 4: 126, 8: 266, 16: 534},
    "mesrgan": {1: 155, 2: 299, 4: 596, 8: 1204, 16: 2402},
}
"""Mean milliseconds of a forward pass, by model and batch size. Their MESRGAN is our `mesrgan-poster`."""
