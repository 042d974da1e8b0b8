"""What people, rules and judges say: the store, raters, agreement, exchange and statistics.

Nothing here imports torch: the annotation page opens without it.
"""
