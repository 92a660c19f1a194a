"""Figures of the arms of a study beside each other."""
