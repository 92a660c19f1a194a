"""The command ``research``, one file a group of commands."""
