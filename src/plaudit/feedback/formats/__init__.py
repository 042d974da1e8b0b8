"""Formats of feedback that others publish, export and read: one file each, and their table.

A format reads rows of a file as items with votes, and writes votes as rows; both a few at a time.
"""
