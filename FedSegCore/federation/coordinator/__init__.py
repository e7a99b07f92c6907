"""The coordinator: certificates, admission, SuperLink, runs, releases."""
