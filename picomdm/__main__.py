"""``python -m picomdm``."""

from picomdm.main import main

main()
