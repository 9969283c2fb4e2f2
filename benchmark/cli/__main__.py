"""`python -m benchmark.cli`, which torchrun starts, is the `spikebench` command."""

from benchmark.cli import main

if __name__ == "__main__":
    main()
