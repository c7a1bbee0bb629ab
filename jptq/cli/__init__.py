"""The command line: `jptq <command> [--flags]`. Nothing here imports JAX before work starts."""
