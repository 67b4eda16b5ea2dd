"""Scores per user, paired comparison, and the files and pages that show them."""
