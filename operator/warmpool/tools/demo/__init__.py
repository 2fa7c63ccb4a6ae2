"""`make demo`: the main job, shown from outside with kubectl, as a user would do it.

`story` is what happens, `stage` what it happens on, `screen` how it looks. The cloud is the
simulator, or with `--cloud` one of the user's clouds.yaml; `clouds` finds and asks it.
"""
