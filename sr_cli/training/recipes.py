"""The recipes that a run starts from: ours, and the experiment's."""

from __future__ import annotations

from sr_cli.training.config import GanConfig, OptimiserConfig, PixelConfig, TrainConfig

POSTER = TrainConfig(
    precision="fp32",
    ema_decay=0.0,
    even_upsampler=False,
    pixel=PixelConfig(
        steps=300_000,
        generator=OptimiserConfig(lr=2e-4, schedule="halve", halve_at=(100_000, 200_000), warmup=0, clip_norm=0.0),
    ),
    gan=GanConfig(
        steps=200_000,
        content_weight=1e-2,
        grid_weight=0.0,
        flat_weight=0.0,
        feature_weight=1.0,
        adversarial_weight=5e-3,
        feature_relative=False,
        feature_loss="l2",
        discriminator_shift=False,
        generator=OptimiserConfig(
            lr=1e-4, schedule="halve", halve_at=(50_000, 100_000, 150_000), warmup=0, clip_norm=0.0
        ),
        discriminator=OptimiserConfig(
            lr=1e-4, schedule="halve", halve_at=(50_000, 100_000, 150_000), warmup=0, clip_norm=0.0
        ),
    ),
)
"""The experiment's recipe (Eriksson and Löf, section "Training")."""

RECIPES = {"ours": TrainConfig(), "poster": POSTER}
