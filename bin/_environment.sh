# Sourced: make the virtual environment $1, install $2 into it unless that is up to date, enter it.
environment=$1 requirement=$2
python=${PYTHON:-python3}
if [ ! -x "$environment/bin/python" ]; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "Python 3.11 or newer is needed; set PYTHON to one" >&2
        exit 1
    }
    "$python" -m venv "$environment"
fi
if ! cat pyproject.toml requirements.txt | cmp -s - "$environment/installed"; then
    echo "installing $requirement into $environment"
    "$environment/bin/python" -m pip install --quiet --constraint requirements.txt --editable "$requirement"
    cat pyproject.toml requirements.txt >"$environment/installed"
fi
source "$environment/bin/activate"
