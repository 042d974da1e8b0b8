"""What is kept and said: types, dataset columns, configs, run folders, events, errors.

Nothing here imports torch: the annotation page and `plaudit --help` start without it.
"""
