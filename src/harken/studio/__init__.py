"""The studio: where people give feedback. `harken studio` serves it; docs/studio-api.md describes its API."""
