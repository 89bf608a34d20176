"""Fields of recipes that are trained in seconds."""

from __future__ import annotations

#: Class-conditional, and fast to compile.
DENSE: dict[str, str | float] = {
    "network": "dense",
    "generator_widths": "8",
    "discriminator_widths": "8",
    "batch_size": 32,
    "width": 8,
    "clusters": 1,
    "images_per_checkpoint": 64,
    "images_per_sheet": 64,
}
