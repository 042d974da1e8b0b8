"""The command `plaudit`; every verb is imported only when it is asked for."""
