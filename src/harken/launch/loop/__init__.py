"""The loop: use, judgments, the next model, a person in charge. docs/loop.md tells it from outside.

    recipe      what a loop is made of                turns       folders, commits, the pointer to what is served
    collect     judgments since the last turn         audit       whose of them train
    improve     reward and policy                     verify      both models on the same prompts
    approval    a signed record                       canary      a share of the traffic, and its stop rule
    drive       the next steps, in order              lineage     which judgments made this, and what a judgment made
"""
