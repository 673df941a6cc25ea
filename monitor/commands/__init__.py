"""The commands of the command line, by subject; monitor/cli.py lists them."""
