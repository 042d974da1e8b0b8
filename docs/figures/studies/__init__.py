"""Studies: functions that compute the data of published figures and tables of finite worlds."""
