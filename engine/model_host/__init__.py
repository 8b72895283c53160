"""The process that runs the models for many others: one model a GPU, or a CPU budget, whatever number of workers.

Place in the flow: ``lipsync.remote``, ``restore.remote`` in every worker -> ``Host`` -> ``Desk`` -> the model.

``host`` has the connections, ``requests`` reads what they ask, ``shelf`` keeps the avatars, ``desk`` owns the threads
and decides what is computed next.
"""
