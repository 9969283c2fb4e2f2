"""`python -m spikebench`, which torchrun starts, is the `spikebench` command."""

from spikebench.cli import main

if __name__ == "__main__":
    main()
