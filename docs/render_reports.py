"""Write the reports of the committed experiments into the site.

    python docs/render_reports.py [FOLDER]

FOLDER is ``build/docs/results`` unless given. Each experiment gets a folder of its own there, with ``report.html``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from digitforge_evaluation import experiment_folder

ROOT: Final = Path(__file__).parents[1]
EXPERIMENTS: Final = ROOT / "evaluation" / "results"

site = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "docs" / "results"
for folder in sorted(path for path in EXPERIMENTS.iterdir() if path.is_dir()):
    _, html = experiment_folder.report(folder, site / folder.name)
    print(html)
