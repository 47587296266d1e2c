"""Lets `python -m streamloss` run the command."""

from streamloss_command import main

if __name__ == "__main__":
    main()
