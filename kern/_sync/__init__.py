"""What concerns several threads, loops and processes at once; it knows nothing of the rest of Kern."""
