"""``python -m merging`` is ``merge``."""

from merging.cli.main import main

if __name__ == "__main__":
    main()
