"""The variational family: its parts, its inference functions, its name."""
