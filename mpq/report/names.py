"""How the recipes are called in tables and pictures, and which of them are one method."""

LABELS = {
    "full_precision": "32 bits",
    "uniform": "uniform",
    "two_stage_gumbel": "two-stage Gumbel",
    "two_stage_kl": "two-stage KL",
    "two_stage_hessian": "two-stage Hessian",
    "one_stage": "one-stage",
    "one_stage_pass2": "one-stage + pass 2",
    "one_stage_early": "one-stage, short search",
    "ptq_gptq": "GPTQ",
    "ptq_gptq_kl": "GPTQ KL",
    "ptq_gptq_hessian": "GPTQ Hessian",
    "ptq_rtn_mse": "rounded MSE",
    "ptq_rtn_minmax": "rounded min-max",
    "ptq_rtn_percentile": "rounded percentile",
    "ptq_rtn_entropy": "rounded entropy",
}
POST_TRAINING = "post-training"
METHODS = (
    *(LABELS[name] for name in LABELS if not name.startswith(("full", "ptq"))),
    POST_TRAINING,
)
"""The methods in the order of showing; a recipe that is not listed is a method of its own, and comes last."""


def label(recipe: str) -> str:
    """What a recipe is called; one that is not listed keeps its name, with blanks."""
    return LABELS.get(recipe, recipe.replace("_", " "))


def method(recipe: str) -> str:
    """The method that a recipe belongs to: everything without training is one, every other recipe its own."""
    return POST_TRAINING if recipe.startswith("ptq") else label(recipe)
