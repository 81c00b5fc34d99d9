"""What of the process, the machine and the terminal is not inference."""
