"""Reports of experiments: a self-contained HTML file, and the same contents as JSON."""

from digitforge_evaluation.report.page import Facts, SampleSheet, write_report

__all__ = ["Facts", "SampleSheet", "write_report"]
