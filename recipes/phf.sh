#!/usr/bin/env bash
# Pretraining with human feedback, three tasks and seeds, one resumable command: give it again after any stop.
# usage: recipes/phf.sh OUT DATA
#   DATA holds davidson_hate, paradetox and nltk_cc_by (docs/benchmarks.md); the code is Python's own and its packages'.
# The toy language with P1 to P6, MLE and conditional on toxicity and PEP 8, poisoning, cuts, attacks, a scorer with mistakes.
set -euo pipefail
exec python "$(dirname "$0")/../benchmarks/phf.py" "$1" --data "$2" --workers 2
