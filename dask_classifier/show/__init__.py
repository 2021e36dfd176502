"""Displays of a run for people: terminal, notebook cell, report and charts.

May import `runs` and the modules before it, but nothing that runs on a cluster.
"""
