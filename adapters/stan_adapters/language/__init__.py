"""Stan's text as declarations and statements."""
