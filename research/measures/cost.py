"""What a network costs. The counting stands with the layers, whose substitutes bring rules of their own."""

from research.layers.cost import LEGACY, RULES, Cost, Row, count

__all__ = ["LEGACY", "RULES", "Cost", "Row", "count"]
