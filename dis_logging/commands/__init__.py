"""The subcommands of ``dis-logging``: each module adds its arguments to a parser and runs with what was parsed."""
