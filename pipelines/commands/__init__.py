"""One file a command, ordered by `pipelines/cli.py`. What is slow is imported when it is called."""
