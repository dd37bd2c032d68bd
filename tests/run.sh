#!/usr/bin/env bash
# Set up a fresh machine and run the tests, in one command:
#
#     bash tests/run.sh                 everything that CI runs
#     bash tests/run.sh -e headless     one environment of tox.ini; arguments go to "tox run"
#
# On Debian and Ubuntu the system libraries that the viewer's tests need are installed (as root, or through sudo where it
# asks for no password). Everything else stays inside the folder .tox; the Python environment in use is not changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

# Xvfb is the display; the rest is what Qt and OpenGL load at run time.
LIBRARIES=(
    xvfb xauth libegl1 libgl1 libgl1-mesa-dri libglx-mesa0 libdbus-1-3 libfontconfig1 libxkbcommon-x11-0
    libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-render-util0 libxcb-xinerama0
)

say() { printf '[tests/run.sh] %s\n' "$*" >&2; }

find_python() {
    # The default Python first: constraints.txt pins a torch that need not exist for the newest ones.
    local candidate
    for candidate in "${PYTHON:-python3}" python3.11 python3.12 python3.13 python3.14 python3 python; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    say "Python 3.11 or newer is needed, with its venv module (Debian, Ubuntu: apt-get install python3-venv)."
    say "If it is not on the PATH: PYTHON=/path/to/python3.11 bash tests/run.sh"
    return 1
}

install_libraries() {
    [[ $(uname -s) == Linux ]] || return 0
    local missing=() library as_root=()
    if ! command -v dpkg-query >/dev/null; then
        command -v Xvfb >/dev/null || say "install Xvfb and the libraries of Qt's xcb plugin (on Debian: ${LIBRARIES[*]})"
        return 0
    fi
    for library in "${LIBRARIES[@]}"; do
        dpkg-query -W -f '${Status}' "$library" 2>/dev/null | grep -q 'install ok installed' || missing+=("$library")
    done
    ((${#missing[@]})) || return 0
    if [[ $(id -u) != 0 ]]; then
        as_root=(sudo -n)
        if ! sudo -n true 2>/dev/null; then
            say "these system libraries are missing, and there is no root access to install them:"
            say "    apt-get install ${missing[*]}"
            return 0
        fi
    fi
    say "installing system libraries: ${missing[*]}"
    apt_get() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 -qq "$@" >&2; }
    apt_get update || say "apt-get update failed; trying with the lists at hand"
    apt_get install -y --no-install-recommends "${missing[@]}" || say "could not install them; going on without"
}

main() {
    local python runner=.tox/runner version
    python=$(find_python)
    install_libraries
    if ! "$runner/bin/python" -m tox --version >/dev/null 2>&1; then
        say "setting up tox in $runner with $python"
        "$python" -m venv --clear "$runner"
        "$runner/bin/python" -m pip install --quiet --disable-pip-version-check "tox>=4.22"
    fi
    if (($# == 0)); then
        version=$("$runner/bin/python" -c 'import sys; print("py%d%d" % sys.version_info[:2])')
        # The largest one last, so that its summary is what the log ends with.
        set -- -e "lint,types,docs,package,headless,$version"
    fi
    exec "$runner/bin/python" -m tox run "$@"
}

main "$@"
