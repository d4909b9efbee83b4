"""Let ``python -m etl`` be ``verify-etl``."""

from etl.cli import main

if __name__ == "__main__":
    main()
