"""A site: its cohort, its trainer, its SuperNode."""
