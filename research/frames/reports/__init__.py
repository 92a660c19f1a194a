"""What is handed to a reader: a table for a paper, and two configurations side by side."""

from research.frames.reports.paper import PaperTable, paper_table
from research.frames.reports.two import side_by_side

__all__ = ["PaperTable", "paper_table", "side_by_side"]
