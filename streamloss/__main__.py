"""Lets `python -m streamloss` run the command."""

from .cli import main

main()
