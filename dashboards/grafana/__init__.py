"""Grafana dashboards as code: ``render.DASHBOARDS`` is the table of all, with a file for each.

The ``*.json`` beside these files are what ``segwatch dashboards render`` writes; a test compares them.
"""
