"""Triton kernels for the models on CUDA. Images are channels last, sums float32; nothing here knows of gradients by itself.

    routes        kernels_for(x), route_for(device type): whether the kernels may run here at all; imports no Triton
    card          which card, with which software; confirmed.json, the kernels that are on by default there
    cases         each kernel beside PyTorch's own path
    trial         trusted(kernel, shape, ...): whether it computes such images, compared and timed at their first use
    convolution   convolve(x, weight, bias, before, flipped=, addend=) -> y      the depthwise convolution; y + addend in the same pass
                  convolve_with_moments(x, weight, bias, before, act) -> u, mean, var      u before the activation, moments of act(u)
                  mix(x, taps_of(weight, x.dtype), bias, scale, shift, before, act)
                      -> x + scale * act(convolution + bias) + shift      for inference
    correlation   correlate(x, dy, kernel_size, before) -> dw, db      the weight gradient, in float32
    norm          moments(u, act) -> mean, var;  normalise(u, mean, var, weight, bias, eps, act, residual) -> y
                  gradient_sums(dy, u, mean, var, eps, act) -> dweight, dbias
                  gradient(dy, u, weight, mean, var, dweight, dbias, eps, act) -> du
                  activate(u, act, shift, y)      y = act(u) + shift, into y
    arithmetic    what several kernels compute; moments: the second stage of every sum
    pointwise     multiply(x, weight, bias, act, shift) -> act(x * weight + bias) + shift      the 1x1 convolution with its epilogue
    tuning        choose(...): which launch is the fastest, measured once per shape and kept on disk

x, y, u, dy: B,C,H,W channels last in float32, bfloat16 or float16. weight: C,1,k,k (pointwise: O,C,1,1). `before`: rows and columns of
zeros above and left. act: "GELU" (exact), "RELU" or "" for none. Nothing here has run on a card so far (`ops.switch` says what that means);
with TRITON_INTERPRET=1 and CONVMIX_KERNELS=triton the same functions take CPU tensors.
"""
