"""Agents on Gymnasium: one file for each algorithm, which owns its loop and says events.

`plaudit.pipelines.control.job` runs them in run folders; in Python, `plaudit.learn` is the short way.
"""
