"""PowerGrad's seed: ``modify_softmax=ALPHA``, where 0 switches it off."""

ALIASES = {"modify_softmax": lambda alpha: {"power_grad": False} if alpha in (0, "0") else {"power_grad.alpha": alpha}}
