"""The long-lived process Slicer talks to: JSON-RPC over standard input and output."""
