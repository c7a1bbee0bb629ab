"""What users call: whole jobs and single steps, arranged from the modules below."""
