#!/usr/bin/env bash
# Pretraining with human feedback, three seeds, one resumable command: give it again after any stop.
# usage: recipes/phf.sh OUT CODE…
#   CODE are folders of Python files, such as the standard library and site-packages.
# The toy language with every objective and P1 to P6, then PEP 8 on real code: MLE beside conditional and filter.
set -euo pipefail
out=$1
shift
here=$(dirname "$0")/..
python "$here/benchmarks/phf.py" toy "$out/toy" --tokens 1000000 --seeds 0 1 2
python "$here/benchmarks/phf.py" pep8 "$out/pep8" --corpus "$@" --tokens 3000000 --size 1M --seeds 0 1 2 \
  --arms mle conditional filter --samples 512
