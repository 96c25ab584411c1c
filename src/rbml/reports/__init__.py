"""Reports on what a run has learned: figures, tables and text. They read run folders, never a live trainer."""

from rbml.reports.adaptation import metric_by_step
from rbml.reports.curves import learning_curve
from rbml.reports.gallery import gallery
from rbml.reports.page import write_report
from rbml.reports.phi import PhiRow, Summary, TensorRow, phi_figure, phi_table, tensor_table
from rbml.reports.theta import theta_figure

__all__ = [
    "PhiRow",
    "Summary",
    "TensorRow",
    "gallery",
    "learning_curve",
    "metric_by_step",
    "phi_figure",
    "phi_table",
    "tensor_table",
    "theta_figure",
    "write_report",
]
