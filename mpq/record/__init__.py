"""The record of a run: result.json, the time ledger, provenance."""
