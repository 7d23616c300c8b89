"""ltkd: long-tailed image classification by patch-level, head/tail-decoupled distillation.

README.md, "For maintainers", has the order in which the modules are read.
"""

__version__ = "0.1.0"
