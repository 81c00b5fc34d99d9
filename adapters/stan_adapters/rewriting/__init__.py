"""Programs rewritten around what an engine gets wrong."""
