"""The federation over Flower: server app, client app, groups, aggregation rules, state."""

import os

# Flower reads these when it is imported, and only this package imports it: nothing is reported to anybody.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
