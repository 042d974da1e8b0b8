"""Studies: functions that compute the data of published figures and tables."""
