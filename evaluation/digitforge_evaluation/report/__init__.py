"""The report of an experiment: one HTML file that needs nothing else, and the same as JSON."""

from digitforge_evaluation.report.page import Facts, SampleSheet, write_report

__all__ = ["Facts", "SampleSheet", "write_report"]
