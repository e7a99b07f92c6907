"""Tables, plots, pictures and the self-contained HTML report."""
