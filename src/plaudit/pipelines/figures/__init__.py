"""Numbers with their intervals: of an evaluation, of several training runs, of a sweep."""
