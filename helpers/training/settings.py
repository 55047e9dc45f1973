"""What `fit` refuses before it trains: settings of the wrong kind, and what a launcher asks for."""

import os

from helpers import CourseError, check_number

# environment variables that `accelerate launch` and its configuration file set, what may stand in
# them, and what `fit` would not do under them, or not rightly
LAUNCHER = {
    "ACCELERATE_DYNAMO_BACKEND": ("no", "compiling (--dynamo_backend)"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("1", "gradient accumulation"),
    "ACCELERATE_USE_DEEPSPEED": ("false", "DeepSpeed"),
    "ACCELERATE_USE_FSDP": ("false", "FSDP"),
    "ACCELERATE_USE_MEGATRON_LM": ("false", "Megatron-LM"),
    "ACCELERATE_USE_PARALLELISM_CONFIG": ("false", "model parallelism"),
}


def check_launcher() -> None:
    """CourseError where `accelerate launch` was told to do what `fit` does itself or cannot do."""
    for variable, (harmless, what) in LAUNCHER.items():
        if os.environ.get(variable, harmless).lower() != harmless:
            raise CourseError(
                f"`accelerate launch` was told to use {what}, with which `fit` does not work: "
                "leave it out of the options and of `accelerate config`. helpers.train_vae has "
                "--compile and --accumulate of its own."
            )


def check_settings(settings: dict) -> None:
    """CourseError, with the name, for a setting of `fit` that is no number or out of its range.

    How long to train is checked by `Length`.
    """
    check_number("batch_size", settings["batch_size"], 1, whole=True)
    check_number("accumulate", settings["accumulate"], 1, whole=True)
    check_number("seed", settings["seed"], whole=True)
    check_number("lr", settings["lr"], 0)
    for beta in settings["betas"]:
        check_number("betas", beta, 0, 1)
    if settings["clip"] is not None:
        check_number("clip", settings["clip"], 0)
    if settings["ema"] is not None:
        check_number("ema", settings["ema"], 0, 1)
