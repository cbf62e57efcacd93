"""The studio: where people give feedback. `harken studio` serves it; docs/studio-api.md describes its API.

Five floors, each of which imports from those below it only: app · pages · api and lead · work · tasks.
"""
