"""Where training begins."""
