# Sourced: make the virtual environment $1, install $2 into it unless that is up to date, enter it.
environment=$1 requirement=$2
python=${PYTHON:-python3}
locks=(requirements.txt requirements/*.txt)
# Without pip it was left unfinished, or its Python is gone.
if ! "$environment/bin/python" -c "import pip" >/dev/null 2>&1; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "Python 3.11 or newer is needed; set PYTHON to one" >&2
        exit 1
    }
    "$python" -m venv --clear "$environment" >/dev/null || {
        echo "$python cannot make $environment: install its venv module (on Debian: apt install python3-venv), or set PYTHON to another Python" >&2
        exit 1
    }
fi
if ! cat pyproject.toml "${locks[@]}" | cmp -s - "$environment/installed"; then
    echo "installing $requirement into $environment"
    "$environment/bin/python" -m pip install --quiet "${locks[@]/#/--constraint=}" --editable "$requirement"
    cat pyproject.toml "${locks[@]}" >"$environment/installed"
fi
source "$environment/bin/activate"
