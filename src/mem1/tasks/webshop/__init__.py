"""WEBSHOP'S FILES -> products and tasks (Yao et al. 2022, arXiv 2207.01206)."""

from mem1.tasks.webshop.goals import (
    Goal,
    WebShopConfig,
    goal_of,
    load_goals,
    open_products,
    products_of,
)
from mem1.tasks.webshop.products import Product, ProductStore

__all__ = [
    "Goal",
    "Product",
    "ProductStore",
    "WebShopConfig",
    "goal_of",
    "load_goals",
    "open_products",
    "products_of",
]
