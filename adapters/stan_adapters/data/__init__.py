"""Values against declarations: checks, tables, positions, sizes."""
