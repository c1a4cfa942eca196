"""Training in a process of its own: it sees scans and no key of the federation; the agent holds keys and sees no scan.

    agent    Flower, protocol, ledger, outbox          --- plan, assignment, model --->    trainer    cache, PyTorch
             masks, signs, answers                     <-- noised integers ------------

Why: a fault, a kernel that runs out of memory or a crash of a driver costs one round and not the agent; a pause ends
training at once; what leaks in one of the two is not in the other; and neither holds the other's libraries in memory.
"""
