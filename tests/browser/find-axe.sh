#!/bin/sh
# Prints the path of axe, which finds faults of accessibility; with --install, gets it from npm where it is missing.
# Exit status 1: none to be had.
axe="${VENV:-.venv}/axe/node_modules/axe-core/axe.min.js"
if [ ! -f "$axe" ] && [ "${1:-}" = "--install" ]; then
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "${VENV:-.venv}/axe" axe-core@4.14.1 >&2
fi
[ -f "$axe" ] && echo "$axe"
