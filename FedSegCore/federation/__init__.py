"""The federation over Flower: server app, client app, groups, aggregation rules, state."""
