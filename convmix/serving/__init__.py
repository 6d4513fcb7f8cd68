"""A model behind HTTP: JSON for programs, a page for people.

`convmix.serve` and `convmix serve` are `server.serve`.

    bytes  --admission-->  --intake-->  images  --batching, workers-->  answering (a process of its own)  -->  rows  --app-->  JSON

The front process reads requests and never decodes an image; what decodes and computes runs in worker processes, so bytes that crash a
decoder cost one worker, which is started again, and not the server.
"""
