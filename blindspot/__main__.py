"""``python -m blindspot``: the command line, for launchers such as ``torchrun`` that start modules."""

from blindspot.cli import app

if __name__ == "__main__":
    app(prog_name="blindspot")
