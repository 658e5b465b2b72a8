"""Files that are never half written: JSON, tables, models and run folders."""
