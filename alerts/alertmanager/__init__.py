"""Alertmanager's configuration: who is told what, when it is kept quiet, and in which words."""
