"""Training in a process of its own: it sees scans and no key of the federation; the agent holds keys and sees no scan.

    agent    Flower, protocol, ledger, outbox          --- plan, assignment, model --->    trainer    cache, PyTorch
             noise, masks, signs, answers              <-- clipped integer sums -------

Why: a fault, a kernel that runs out of memory or a crash of a driver costs one round and not the agent; a pause ends
training at once; what leaks in one of the two is not in the other; a file that takes over whoever reads it finds no
noise there to leave out; and neither holds the other's libraries in memory.
"""
