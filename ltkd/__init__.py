"""ltkd: long-tailed image classification by patch-level, head/tail-decoupled distillation.

Read the modules in this order: schedules, experiments, longtail, sources, datasets, batches,
networks, losses, distillation, objectives, optimizers, processes, compiling, training, evaluation,
bank, supervision, checkpoints, runs, benchmark; then for the panel images, classifier, gallery,
overlays, thumbnails, answers, uploader, controls, panel; and for the course style, plots, sliders,
lessons, tiles, trials, shipped, covers, notebooks.
"""

__version__ = "0.1.0"
