"""What every server of Harken shares: a site over a database with one writer, operations, accounts, limits, guards, scripts."""
