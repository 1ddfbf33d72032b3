# Sourced by the scripts beside it: a private Python environment, made when it is missing or out of date.
#
#   edgeai_environment FOLDER EXTRA   makes FOLDER with edgeai and this extra; afterwards $python is its interpreter
#
#   edgeai ARGUMENTS                  the command, of this checkout
#   default_package                   sets $package: EDGEAI_BENCH_PACKAGE, or the default model's, built when it is missing
#
# Scripts stay in the folder they are called from, for that is where files are that their options name; modules come from
# this checkout all the same.
#
# Everything that is said goes to standard error; standard output belongs to the script's result.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "error: $1"
    [ $# -lt 2 ] || say "  $2"
    exit 1
}

# The first interpreter that is new enough; $PYTHON names one.
find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s' "$candidate"
            return
        fi
    done
    fail "edgeai needs Python 3.11 or newer, and there is none" \
        "install it (on Debian and Ubuntu: sudo apt install python3 python3-venv), or set PYTHON to where it is"
}

edgeai_environment() {
    local folder=$root/$1 extra=$2 made stamp
    python=$folder/bin/python
    # What the environment was made from; it is made again when any of this changes.
    made="$root $(cksum <"$root/pyproject.toml")"
    for stamp in "$folder/.made-$extra" "$folder/.made-dev"; do # dev has all that others have
        if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$made" ] && "$python" -c '' 2>/dev/null; then
            return
        fi
    done
    local base
    base=$(find_python)
    say "Setting up ${folder##*/} with $("$base" --version); this happens once and takes a minute or two ..."
    "$python" -c '' 2>/dev/null || make_venv "$base" "$folder"
    "$python" -m pip install --disable-pip-version-check --no-input -e "$root[$extra]" >&2 ||
        fail "not everything could be installed" "see pip's message above; running this again continues"
    printf '%s' "$made" >"$folder/.made-$extra"
}

make_venv() {
    "$1" -m venv --clear "$2" >&2 || {
        rm -rf "$2"
        fail "$1 cannot make a private environment" "on Debian and Ubuntu: sudo apt install python3-venv"
    }
}

edgeai() { "$python" -P -m edgeai "$@"; } # -P: not of a checkout that it happens to be called in

default_package() {
    local model=smollm2-135m-instruct
    package=${EDGEAI_BENCH_PACKAGE:-$(edgeai models path "$model" 2>/dev/null || edgeai build "$model")}
}
