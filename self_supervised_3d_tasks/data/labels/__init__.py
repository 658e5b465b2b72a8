"""Labels of whole scans: tables of classes and of findings."""
