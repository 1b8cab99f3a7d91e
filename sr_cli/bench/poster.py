"""Table 1 of Eriksson and Löf, "Lightweight Super-Resolution"."""

POSTER_MS = {
    "srgan": {1: 26, 2: 50, 4: 134, 8: 279, 16: 561},
    "esrgan": {1: 33, 2: 62, 4: 126, 8: 266, 16: 534},
    "mesrgan": {1: 155, 2: 299, 4: 596, 8: 1204, 16: 2402},
}
"""Table 1 of the poster: milliseconds by batch size. Its MESRGAN is our `mesrgan-poster`."""
