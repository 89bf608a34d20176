"""The histogram on the page of neighbors: distances to the nearest training image."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from digitforge_evaluation.report.svg import ACCENT, INK, TEXT, axes_of, svg_of

_BINS: Final = 60
_SHOWN: Final = 0.995  # of each distribution; the last bin holds everything farther away


def distance_histogram(*, generated: npt.NDArray[np.float64], held_out: npt.NDArray[np.float64]) -> str:
    """Distances to the nearest training image, of generated and of held-out real images. SVG.

    Args:
        generated: (n,) distances of generated images.
        held_out: (h,) distances of held-out real images.
    """
    figure, axes = axes_of(height=2.6)
    far = float(max(np.quantile(generated, _SHOWN), np.quantile(held_out, _SHOWN), 1e-12))
    bins = list(np.linspace(0, far, _BINS + 1))
    for values, label, look in (
        (generated, "generated", {"histtype": "stepfilled", "color": ACCENT, "alpha": 0.45}),
        (held_out, "held-out real", {"histtype": "step", "color": INK}),
    ):
        share = np.full(len(values), 100 / len(values))
        axes.hist(np.minimum(values, far), bins, weights=share, label=label, **look)
    axes.set_xlabel("distance to the nearest training image")
    axes.set_ylabel("share, %")
    axes.legend(frameon=False, labelcolor=INK, fontsize=TEXT)
    return svg_of(figure, "distances to the nearest training image, of generated and of held-out images")
