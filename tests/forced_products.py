"""Forced products of the whole suite: ``pytest --products torch``, or ``own`` where it can."""

import os

from fedsi.kernels.cpu import product_choice

CHOSEN = "FEDSI_TEST_PRODUCTS"
"""Environment variable that tells forked processes what the suite was started with."""


def force(products: str) -> None:
    """Let ``client.products=auto`` mean these products in this process."""
    product_choice.usual_products = lambda: products


def force_as_asked() -> None:
    """Do so if the suite was started with an option."""
    if products := os.environ.get(CHOSEN):
        force(products)
