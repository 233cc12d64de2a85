"""Backpropagation without the autograd engine of torch, in one thread.

The engine of a CUDA build refuses tensors that report `cuda` on a machine without a driver. The
nodes of the graph can be called from Python all the same.
"""

from collections import defaultdict

import torch
from torch.autograd.function import BackwardCFunction


def backward(loss, gradient):
    """Add the gradients of `loss`, times `gradient`, to `grad` of the leaves, as `backward` does.

    Hooks of tensors and nodes do not run; the graph is not freed.
    """
    gradients = defaultdict(dict)  # {node: {number of its output in the forward: gradient}}
    gradients[loss.grad_fn][loss.output_nr] = gradient
    with torch.no_grad():
        for node in nodes_from(loss.grad_fn):
            results = call(node, gradients.pop(node, {}))
            for (parent, number), result in zip(node.next_functions, results, strict=True):
                if parent is not None and result is not None:
                    earlier = gradients[parent].get(number)
                    gradients[parent][number] = result if earlier is None else earlier + result


def nodes_from(root):
    """Return the nodes of a graph, each before those that take its results."""
    order, seen, stack = [], set(), [(root, False)]
    while stack:
        node, has_parents = stack.pop()
        if has_parents:
            order.append(node)
        elif node is not None and node not in seen:
            seen.add(node)
            stack += [(node, True), *((parent, False) for parent, _ in node.next_functions)]
    return reversed(order)


def call(node, gradients):
    """Return the gradients of a node's inputs, given {number of the output: its gradient}."""
    arguments = []
    for number, output in enumerate(node._input_metadata):
        gradient = gradients.get(number)
        if gradient is not None:  # an operation may broadcast, and autocast may cast
            gradient = gradient.sum_to_size(output.shape).to(output.dtype)
        elif isinstance(node, BackwardCFunction):  # a function of Python is given zeros
            gradient = torch.zeros(output.shape, dtype=output.dtype, device=output.device)
        arguments.append(gradient)
    is_python = isinstance(node, BackwardCFunction)
    results = node.apply(*arguments) if is_python else node(*arguments)
    results = results if isinstance(results, tuple) else (results,)
    # a leaf has no parents; a function of Python may return None for what is no tensor
    return results[: len(node.next_functions)]
