"""The sections of the report: each is a function from a run to what its template shows, or None where data lack."""
