"""Judging predictions against labels, and estimating a window's quality from few labels or none."""
