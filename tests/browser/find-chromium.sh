#!/bin/sh
# Prints the path of a Chromium; with --install, tries to get one where none is there. Exit status 1: none to be had.
find_one() {
    for name in "${VISAVIS_CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable \
        "$HOME"/.cache/ms-playwright/chromium-*/chrome-linux*/chrome; do
        [ -n "$name" ] && command -v "$name" 2>/dev/null && return 0
    done
    return 1
}
find_one && exit 0
[ "${1:-}" = "--install" ] || exit 1
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } >&2
fi
find_one && exit 0
# Without root: the browser that Playwright brings, kept in the user's own cache.
"${VENV:-.venv}/bin/python" -m playwright install chromium >&2
find_one
