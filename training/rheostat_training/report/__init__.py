"""What a run leaves for people to read: one page, its pictures, a table, and the adapter's model card.

Read `facts.py` first, what a report is made of; then `write.py`, which makes the files.
"""

from rheostat_training.report.facts import JudgeRole, RunFacts, StageFact, read_losses
from rheostat_training.report.markdown import evaluation_table
from rheostat_training.report.model_card import model_card, write_model_card
from rheostat_training.report.write import write_report

__all__ = [
    "JudgeRole",
    "RunFacts",
    "StageFact",
    "evaluation_table",
    "model_card",
    "read_losses",
    "write_model_card",
    "write_report",
]
